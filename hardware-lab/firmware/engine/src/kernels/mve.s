@ Loops for the vector extension. Arguments come as a structure; see mve.rs for what it and the buffers hold.

    .syntax unified
    .cpu cortex-m55
    .text

@ The first two steps of scaling. A negative sum is lowered by one, which makes the shift's rounding go away from zero; every shift
@ is to the right by at least one (Finish::plain).
    .macro shift sums, multipliers, shifts, work
    vqrdmulh.s32 \sums, \sums, \multipliers
    vshr.s32 \work, \sums, #31
    vadd.i32 \sums, \sums, \work
    vrshl.s32 \sums, \sums, \shifts
    .endm

@ Scales four sums: rounding doubling high multiplication, rounding shift away from zero, zero point, bounds.
    .macro scale sums, multipliers, shifts, work, zero, low, high
    shift \sums, \multipliers, \shifts, \work
    vadd.i32 \sums, \sums, \zero
    vmax.s32 \sums, \sums, \low
    vmin.s32 \sums, \sums, \high
    .endm

@ void edgeyard_mve_rows(const RowsArguments *): all rows of input times four rows of weights.
@ r0 r2 r4 r6 sums, r1 r3 r5 r7 weights, r8 input, r9 length, r10 output, r11 pixels, r12 zero point
@ q2 low, q3 high, q4 starts, q5 multipliers, q6 shifts
    .section .text.edgeyard_mve_rows,"ax",%progbits
    .global edgeyard_mve_rows
    .type edgeyard_mve_rows, %function
    .thumb_func
    .p2align 2
edgeyard_mve_rows:
    push {r4-r11, lr}
    vpush {d8-d15}
    sub sp, #44
    ldm r0, {r1-r11}
    stm sp, {r1-r11}
    movs r0, #0
    vidup.u32 q7, r0, #4
    movs r1, #3
    vmul.i32 q7, q7, r1
    ldr r12, [sp, #8]
    vldrw.u32 q4, [r12, q7]
    adds r12, #4
    vldrw.u32 q5, [r12, q7]
    adds r12, #4
    vldrw.u32 q6, [r12, q7]
    ldrd r8, r1, [sp, #0]
    ldr r10, [sp, #12]
    ldrd r11, r9, [sp, #20]
    ldrd r0, r2, [sp, #36]
    vdup.32 q2, r0
    vdup.32 q3, r2
    ldr r12, [sp, #32]
1:  vmov r0, r4, q4[2], q4[0]
    vmov r2, r6, q4[3], q4[1]
    ldr r1, [sp, #4]
    add r3, r1, r9
    add r5, r3, r9
    add r7, r5, r9
    dlstp.8 lr, r9
2:  vldrb.u8 q0, [r8], #16
    vldrb.u8 q1, [r1], #16
    vmladava.s8 r0, q0, q1
    vldrb.u8 q1, [r3], #16
    vmladava.s8 r2, q0, q1
    vldrb.u8 q1, [r5], #16
    vmladava.s8 r4, q0, q1
    vldrb.u8 q1, [r7], #16
    vmladava.s8 r6, q0, q1
    letp lr, 2b
    vmov q0[2], q0[0], r0, r4
    vmov q0[3], q0[1], r2, r6
    scale q0, q5, q6, q1, r12, q2, q3
    ldr r0, [sp, #28]
    ldr r2, [sp, #16]
    sub r8, r0
    mov r7, r10
    vstrb.32 q0, [r7]
    add r10, r2
    subs r11, #1
    bne 1b
    add sp, #44
    vpop {d8-d15}
    pop {r4-r11, pc}
    .size edgeyard_mve_rows, . - edgeyard_mve_rows

@ void edgeyard_mve_short(const RowsArguments *): as edgeyard_mve_rows, for rows of at most 16 values: the weights stay in registers.
@ r0 r2 r4 r6 sums, r8 input, r9 length, r7 output, r11 output step, r12 zero point
@ q2 starts, q3 multipliers, q4 to q7 weights; on the stack shifts, low, high. P0 says which bytes are a row's.
    .section .text.edgeyard_mve_short,"ax",%progbits
    .global edgeyard_mve_short
    .type edgeyard_mve_short, %function
    .thumb_func
    .p2align 2
edgeyard_mve_short:
    push {r4-r11, lr}
    vpush {d8-d15}
    sub sp, #48
    ldrd r8, r1, [r0, #0]
    ldrd r3, r7, [r0, #8]
    ldrd r11, lr, [r0, #16]
    ldr r9, [r0, #24]
    ldrd r12, r4, [r0, #32]
    ldr r5, [r0, #40]
    vdup.32 q0, r4
    vstrw.32 q0, [sp, #16]
    vdup.32 q0, r5
    vstrw.32 q0, [sp, #32]
    movs r2, #0
    vidup.u32 q7, r2, #4
    movs r2, #3
    vmul.i32 q7, q7, r2
    vldrw.u32 q2, [r3, q7]
    adds r3, #4
    vldrw.u32 q3, [r3, q7]
    adds r3, #4
    vldrw.u32 q0, [r3, q7]
    vstrw.32 q0, [sp]
    vctp.8 r9
    vpst
    vldrbt.u8 q4, [r1]
    add r1, r9
    vpst
    vldrbt.u8 q5, [r1]
    add r1, r9
    vpst
    vldrbt.u8 q6, [r1]
    add r1, r9
    vpst
    vldrbt.u8 q7, [r1]
    dls lr, lr
1:  vpst
    vldrbt.u8 q0, [r8]
    add r8, r9
    vmladav.s8 r0, q0, q4
    vmladav.s8 r2, q0, q5
    vmladav.s8 r4, q0, q6
    vmladav.s8 r6, q0, q7
    vmov q0[2], q0[0], r0, r4
    vmov q0[3], q0[1], r2, r6
    vadd.i32 q0, q0, q2
    vqrdmulh.s32 q0, q0, q3
    vshr.s32 q1, q0, #31
    vadd.i32 q0, q0, q1
    vldrw.u32 q1, [sp]
    vrshl.s32 q0, q0, q1
    vadd.i32 q0, q0, r12
    vldrw.u32 q1, [sp, #16]
    vmax.s32 q0, q0, q1
    vldrw.u32 q1, [sp, #32]
    vmin.s32 q0, q0, q1
    vstrb.32 q0, [r7]
    add r7, r11
    le lr, 1b
    add sp, #48
    vpop {d8-d15}
    pop {r4-r11, pc}
    .size edgeyard_mve_short, . - edgeyard_mve_short

@ void edgeyard_mve_window(const int8_t *from, int8_t *to, size_t lines, size_t bytes, size_t step, size_t to_step): lines of an image.
    .section .text.edgeyard_mve_window,"ax",%progbits
    .global edgeyard_mve_window
    .type edgeyard_mve_window, %function
    .thumb_func
    .p2align 2
edgeyard_mve_window:
    push {r4, r5, r6, r7, r8, lr}
    ldrd r4, r7, [sp, #24]
    cmp r3, #16
    bhi 3f
@ Short lines, one vector each.
    vctp.8 r3
    dls lr, r2
4:  vpst
    vldrbt.u8 q0, [r0]
    vpst
    vstrbt.8 q0, [r1]
    add r0, r4
    add r1, r7
    le lr, 4b
    pop {r4, r5, r6, r7, r8, pc}
3:  mov r5, r0
    mov r6, r1
    dlstp.8 lr, r3
2:  vldrb.u8 q0, [r5], #16
    vstrb.8 q0, [r6], #16
    letp lr, 2b
    add r0, r4
    add r1, r7
    subs r2, #1
    bne 3b
    pop {r4, r5, r6, r7, r8, pc}
    .size edgeyard_mve_window, . - edgeyard_mve_window

@ void edgeyard_mve_columns(const int8_t *from, int8_t *to, size_t columns, size_t step): eight channels of each column.
    .section .text.edgeyard_mve_columns,"ax",%progbits
    .global edgeyard_mve_columns
    .type edgeyard_mve_columns, %function
    .thumb_func
    .p2align 2
edgeyard_mve_columns:
    push {r7, lr}
    wls lr, r2, 2f
1:  vldrb.u16 q0, [r0]
    add r0, r3
    vstrb.16 q0, [r1], #8
    le lr, 1b
2:  pop {r7, pc}
    .size edgeyard_mve_columns, . - edgeyard_mve_columns

@ void edgeyard_mve_taps(const TapsArguments *): a window of any size over eight channels.
@ r0 values, r1 weights, r2 bytes to the next column, r3 to the next line, r4 lines, r5 columns, r6 sums, r7 gap between lines of weights
    .section .text.edgeyard_mve_taps,"ax",%progbits
    .global edgeyard_mve_taps
    .type edgeyard_mve_taps, %function
    .thumb_func
    .p2align 2
edgeyard_mve_taps:
    push {r4-r7, lr}
    ldm r0, {r0-r7}
    vldrw.u32 q0, [r6]
    vldrw.u32 q1, [r6, #16]
1:  dls lr, r5
2:  vldrb.s16 q2, [r0]
    add r0, r2
    vldrb.s16 q3, [r1], #8
    vmul.i16 q2, q2, q3
    vmovlb.s16 q3, q2
    vmovlt.s16 q2, q2
    vadd.i32 q0, q0, q3
    vadd.i32 q1, q1, q2
    le lr, 2b
    add r0, r3
    add r1, r7
    subs r4, #1
    bne 1b
    vstrw.32 q0, [r6]
    vstrw.32 q1, [r6, #16]
    pop {r4-r7, pc}
    .size edgeyard_mve_taps, . - edgeyard_mve_taps

@ void edgeyard_mve_planes(const PlanesArguments *): a line of 3x3 windows over eight channels, one window at a time.
@ r0 r1 r2 lines, r3 weights, r4 channels, r5 output, r6 output step, r7 pixels, r8 bytes to the next window, r9 zero point
@ q0 sums of even channels, q1 of odd ones, q5 low, q6 high, q7 offsets of every other channel

@ Two taps: their products still fit 16 bits when added, since no weight is -128 (Finish::symmetric).
    .macro two_taps first, first_offset, second, second_offset
    vldrb.s16 q2, [\first, #\first_offset]
    vldrb.s16 q3, [r3], #8
    vmul.i16 q2, q2, q3
    vldrb.s16 q3, [\second, #\second_offset]
    vldrb.s16 q4, [r3], #8
    vmul.i16 q3, q3, q4
    vadd.i16 q2, q2, q3
    vmovlb.s16 q3, q2
    vmovlt.s16 q2, q2
    vadd.i32 q0, q0, q3
    vadd.i32 q1, q1, q2
    .endm

    .section .text.edgeyard_mve_planes,"ax",%progbits
    .global edgeyard_mve_planes
    .type edgeyard_mve_planes, %function
    .thumb_func
    .p2align 2
edgeyard_mve_planes:
    push {r4-r11, lr}
    vpush {d8-d15}
    ldr r11, [r0, #44]
    ldr r12, [r0, #40]
    vdup.16 q6, r11
    vdup.16 q5, r12
    ldm r0, {r0-r9}
    movs r10, #0
    vidup.u32 q7, r10, #4
    movs r10, #6
    vmul.i32 q7, q7, r10
    add r10, r4, #12
    add r11, r4, #4
    add r12, r4, #8
    add lr, r4, #16
1:  vldrw.u32 q0, [r4, q7]
    vldrw.u32 q1, [r10, q7]
    two_taps r0, 0, r0, 8
    two_taps r0, 16, r1, 0
    two_taps r1, 8, r1, 16
    two_taps r2, 0, r2, 8
    vldrb.s16 q2, [r2, #16]
    vldrb.s16 q3, [r3], #8
    vmullb.s16 q4, q2, q3
    vmullt.s16 q2, q2, q3
    vadd.i32 q0, q0, q4
    vadd.i32 q1, q1, q2
    vldrw.u32 q2, [r11, q7]
    vldrw.u32 q3, [r12, q7]
    shift q0, q2, q3, q4
    sub r3, #72
    vldrw.u32 q2, [lr, q7]
    add lr, #4
    vldrw.u32 q3, [lr, q7]
    sub lr, #4
    shift q1, q2, q3, q4
    vqmovnb.s32 q0, q0
    vqmovnt.s32 q0, q1
    vqadd.s16 q0, q0, r9
    vmax.s16 q0, q0, q5
    vmin.s16 q0, q0, q6
    vstrb.16 q0, [r5]
    add r0, r8
    add r1, r8
    add r2, r8
    add r5, r6
    subs r7, #1
    bne 1b
    vpop {d8-d15}
    pop {r4-r11, pc}
    .size edgeyard_mve_planes, . - edgeyard_mve_planes
    .text
