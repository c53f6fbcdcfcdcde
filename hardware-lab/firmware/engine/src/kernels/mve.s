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

@ void edgeyard_mve_pairs(const PairsArguments *), _clamp, _long, _long_clamp: pairs of rows of input times four rows of weights, which
@ are packed: 16 values of each row, then the next 16 of each. Rows of at least two packs.
@ r0 r2 r4 r6 sums of the first row, r8 r10 r12 lr of the second, r1 r3 input, r5 weights, r7 packs, r9 output, r11 pairs
@ q3 starts, q4 multipliers, q5 shifts, q6 places of the outputs, q7 low
    .macro four_sums multiply
    vldrb.u8 q0, [r1], #16
    vldrb.u8 q1, [r3], #16
    vldrw.u32 q2, [r5], #64
    \multiply\().s8 r0, q0, q2
    \multiply\().s8 r8, q1, q2
    vldrw.u32 q2, [r5, #-48]
    \multiply\().s8 r2, q0, q2
    \multiply\().s8 r10, q1, q2
    vldrw.u32 q2, [r5, #-32]
    \multiply\().s8 r4, q0, q2
    \multiply\().s8 r12, q1, q2
    vldrw.u32 q2, [r5, #-16]
    \multiply\().s8 r6, q0, q2
    \multiply\().s8 lr, q1, q2
    .endm

@ The sums of two rows to q0 and q1.
    .macro collect
    vmov q0[2], q0[0], r0, r4
    vmov q0[3], q0[1], r2, r6
    vmov q1[2], q1[0], r8, r12
    vmov q1[3], q1[1], r10, lr
    .endm

@ x - (x < 0) is x + floor(x / 2^31): a doubling multiplication by 1 with accumulation (VQDMLAH) does it at once.
    .macro lower sums, one
    vqdmlah.s32 \sums, \sums, \one
    .endm

@ Two vectors of four scaled sums to eight values of 16 bits in q0, every other one from q1, with the zero point.
    .macro narrow zero
    vqmovnb.s32 q0, q0
    vqmovnt.s32 q0, q1
    vqadd.s16 q0, q0, \zero
    .endm

@ A row of at most 17 packs enters 16 packs in a row where what is left of them is its own: r7 is the address. For longer ones it counts.
    .macro pairs_loop clamp, long
1:  four_sums vmladav
    .if \long
2:  four_sums vmladava
    subs r7, #1
    bne 2b
    .else
    bx r7
    .rept 16
    four_sums vmladava
    .endr
3:
    .endif
    collect
    ldm sp, {r0, r2, r4, r5, r6, r7}
    vadd.i32 q0, q0, q3
    vadd.i32 q1, q1, q3
    vqrdmulh.s32 q0, q0, q4
    vqrdmulh.s32 q1, q1, q4
    lower q0, r0
    lower q1, r0
    vrshl.s32 q0, q0, q5
    vrshl.s32 q1, q1, q5
    narrow r2
    .if \clamp
    vldrw.u32 q2, [sp, #32]
    vmax.s16 q0, q0, q7
    vmin.s16 q0, q0, q2
    .else
    vqmovnb.s16 q0, q0
    .endif
    vstrb.16 q0, [r9, q6]
    add r9, r6
    add r1, r4
    add r3, r4
    subs r11, #1
    bne.w 1b
    add sp, #48
    vpop {d8-d15}
    pop {r4-r11, pc}
    .endm

@ On the stack: 1, zero point, bytes to the next pair of rows, weights, bytes to the next pair of outputs, r7; at 32 high.
    .macro pairs_start long
    push {r4-r11, lr}
    vpush {d8-d15}
    sub sp, #48
    ldrd r1, r3, [r0, #0]
    ldrd r5, r8, [r0, #8]
    ldrd r9, r7, [r0, #16]
    ldrd r11, r12, [r0, #24]
    ldrd r4, r2, [r0, #32]
    ldrd r6, r10, [r0, #40]
    vdup.16 q7, r6
    vdup.16 q0, r10
    vstrw.32 q0, [sp, #32]
    lsls r6, r7, #1
    .if \long == 0
    @ 14 instructions of four bytes each.
    mov r10, #56
    mul r12, r12, r10
    adr.w r10, 3f
    sub r12, r10, r12
    orr r12, r12, #1
    .endif
    mov r0, #1
    stm sp, {r0, r2, r4, r5, r6, r12}
    movs r0, #0
    vidup.u32 q0, r0, #4
    movs r2, #3
    vmul.i32 q0, q0, r2
    vldrw.u32 q3, [r8, q0]
    adds r8, #4
    vldrw.u32 q4, [r8, q0]
    adds r8, #4
    vldrw.u32 q5, [r8, q0]
    @ Places: 0, step, 1, 1 + step, 2, ...
    movs r0, #0
    vidup.u32 q6, r0, #1
    vadd.i32 q0, q6, r7
    vmovnt.i32 q6, q0
    mov r7, r12
    .endm

    .section .text.edgeyard_mve_pairs,"ax",%progbits
    .global edgeyard_mve_pairs
    .type edgeyard_mve_pairs, %function
    .thumb_func
    .p2align 2
edgeyard_mve_pairs:
    pairs_start 0
    pairs_loop 0, 0
    .size edgeyard_mve_pairs, . - edgeyard_mve_pairs

    .section .text.edgeyard_mve_pairs_clamp,"ax",%progbits
    .global edgeyard_mve_pairs_clamp
    .type edgeyard_mve_pairs_clamp, %function
    .thumb_func
    .p2align 2
edgeyard_mve_pairs_clamp:
    pairs_start 0
    pairs_loop 1, 0
    .size edgeyard_mve_pairs_clamp, . - edgeyard_mve_pairs_clamp

    .section .text.edgeyard_mve_pairs_long,"ax",%progbits
    .global edgeyard_mve_pairs_long
    .type edgeyard_mve_pairs_long, %function
    .thumb_func
    .p2align 2
edgeyard_mve_pairs_long:
    pairs_start 1
    pairs_loop 0, 1
    .size edgeyard_mve_pairs_long, . - edgeyard_mve_pairs_long

    .section .text.edgeyard_mve_pairs_long_clamp,"ax",%progbits
    .global edgeyard_mve_pairs_long_clamp
    .type edgeyard_mve_pairs_long_clamp, %function
    .thumb_func
    .p2align 2
edgeyard_mve_pairs_long_clamp:
    pairs_start 1
    pairs_loop 1, 1
    .size edgeyard_mve_pairs_long_clamp, . - edgeyard_mve_pairs_long_clamp

@ void edgeyard_mve_short_pairs(const PairsArguments *), edgeyard_mve_short_pairs_clamp: as edgeyard_mve_pairs, for rows of at most 16
@ values: the weights, not packed, stay in registers. In place of the packs stands the length.
@ sums and input as above, r5 bytes to the next pair of rows, r7 bytes to the next pair of outputs, r9 output, r11 pairs
@ q3 places, q4 to q7 weights. P0 says which bytes are a row's.
    .macro short_pairs clamp
    push {r4-r11, lr}
    vpush {d8-d15}
    sub sp, #120
    ldrd r1, r3, [r0, #0]
    ldrd r5, r8, [r0, #8]
    ldrd r9, r7, [r0, #16]
    ldrd r11, r12, [r0, #24]
    ldrd r4, r2, [r0, #32]
    ldrd r6, r10, [r0, #40]
    vdup.16 q0, r6
    vstrw.32 q0, [sp, #80]
    vdup.16 q0, r10
    vstrw.32 q0, [sp, #96]
    movs r0, #0
    vidup.u32 q0, r0, #4
    movs r0, #3
    vmul.i32 q0, q0, r0
    vldrw.u32 q1, [r8, q0]
    vstrw.32 q1, [sp]
    vstrw.32 q1, [sp, #16]
    adds r8, #4
    vldrw.u32 q1, [r8, q0]
    vstrw.32 q1, [sp, #48]
    adds r8, #4
    vldrw.u32 q1, [r8, q0]
    vstrw.32 q1, [sp, #64]
    movs r0, #1
    strd r0, r2, [sp, #32]
    movs r0, #0
    vidup.u32 q3, r0, #1
    vadd.i32 q0, q3, r7
    vmovnt.i32 q3, q0
    vctp.8 r12
    vpst
    vldrbt.u8 q4, [r5]
    add r5, r12
    vpst
    vldrbt.u8 q5, [r5]
    add r5, r12
    vpst
    vldrbt.u8 q6, [r5]
    add r5, r12
    vpst
    vldrbt.u8 q7, [r5]
    mov r5, r4
    lsls r7, r7, #1
1:  vpstt
    vldrbt.u8 q0, [r1]
    vldrbt.u8 q1, [r3]
    ldm sp, {r0, r2, r4, r6, r8, r10, r12, lr}
    vmladava.s8 r0, q0, q4
    vmladava.s8 r8, q1, q4
    vmladava.s8 r2, q0, q5
    vmladava.s8 r10, q1, q5
    vmladava.s8 r4, q0, q6
    vmladava.s8 r12, q1, q6
    vmladava.s8 r6, q0, q7
    vmladava.s8 lr, q1, q7
    collect
    ldrd r0, r2, [sp, #32]
    vldrw.u32 q2, [sp, #48]
    vqrdmulh.s32 q0, q0, q2
    vqrdmulh.s32 q1, q1, q2
    lower q0, r0
    lower q1, r0
    vldrw.u32 q2, [sp, #64]
    vrshl.s32 q0, q0, q2
    vrshl.s32 q1, q1, q2
    narrow r2
    .if \clamp
    vldrw.u32 q1, [sp, #80]
    vldrw.u32 q2, [sp, #96]
    vmax.s16 q0, q0, q1
    vmin.s16 q0, q0, q2
    .else
    vqmovnb.s16 q0, q0
    .endif
    vstrb.16 q0, [r9, q3]
    add r9, r7
    add r1, r5
    add r3, r5
    subs r11, #1
    bne 1b
    add sp, #120
    vpop {d8-d15}
    pop {r4-r11, pc}
    .endm

    .section .text.edgeyard_mve_short_pairs,"ax",%progbits
    .global edgeyard_mve_short_pairs
    .type edgeyard_mve_short_pairs, %function
    .thumb_func
    .p2align 2
edgeyard_mve_short_pairs:
    short_pairs 0
    .size edgeyard_mve_short_pairs, . - edgeyard_mve_short_pairs

    .section .text.edgeyard_mve_short_pairs_clamp,"ax",%progbits
    .global edgeyard_mve_short_pairs_clamp
    .type edgeyard_mve_short_pairs_clamp, %function
    .thumb_func
    .p2align 2
edgeyard_mve_short_pairs_clamp:
    short_pairs 1
    .size edgeyard_mve_short_pairs_clamp, . - edgeyard_mve_short_pairs_clamp

@ void edgeyard_mve_pack(const int8_t *rows, int8_t *to, size_t packs, size_t length): four rows as edgeyard_mve_pairs wants them, the
@ last pack filled with zeros.
    .section .text.edgeyard_mve_pack,"ax",%progbits
    .global edgeyard_mve_pack
    .type edgeyard_mve_pack, %function
    .thumb_func
    .p2align 2
edgeyard_mve_pack:
    push {r4, r5, r6, lr}
    add r4, r0, r3
    add r5, r4, r3
    add r6, r5, r3
    dls lr, r2
1:  vctp.8 r3
    vpstttt
    vldrbt.u8 q0, [r0], #16
    vldrbt.u8 q1, [r4], #16
    vldrbt.u8 q2, [r5], #16
    vldrbt.u8 q3, [r6], #16
    vstrw.32 q0, [r1], #64
    vstrw.32 q1, [r1, #-48]
    vstrw.32 q2, [r1, #-32]
    vstrw.32 q3, [r1, #-16]
    sub r3, #16
    le lr, 1b
    pop {r4, r5, r6, pc}
    .size edgeyard_mve_pack, . - edgeyard_mve_pack

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

@ void edgeyard_mve_spread_N(const SpreadArguments *): N lines of an image, eight channels of each column, to planes: the bytes of the
@ lines side by side, four bytes a column, a plane for each channel.
@ r0-r3 lines, r4-r7 bytes to their next columns, r8 planes, r9 columns, r10 bytes of a plane; q4-q7 places of the channels
    .macro spread lines
    push {r4-r10, lr}
    vpush {d8-d15}
    ldm r0, {r0-r10}
    mov r12, #0
    vidup.u16 q4, r12, #1
    vmul.i16 q4, q4, r10
    movs.w r10, #1
    vadd.i16 q5, q4, r10
    vadd.i16 q6, q5, r10
    .if \lines == 4
    vadd.i16 q7, q6, r10
    .endif
    wls lr, r9, 2f
1:  vldrb.u16 q0, [r0]
    vldrb.u16 q1, [r1]
    vldrb.u16 q2, [r2]
    add r0, r4
    add r1, r5
    add r2, r6
    vstrb.16 q0, [r8, q4]
    vstrb.16 q1, [r8, q5]
    vstrb.16 q2, [r8, q6]
    .if \lines == 4
    vldrb.u16 q3, [r3]
    add r3, r7
    vstrb.16 q3, [r8, q7]
    .endif
    adds r8, #4
    le lr, 1b
2:  vpop {d8-d15}
    pop {r4-r10, pc}
    .endm

    .section .text.edgeyard_mve_spread_3,"ax",%progbits
    .global edgeyard_mve_spread_3
    .type edgeyard_mve_spread_3, %function
    .thumb_func
    .p2align 2
edgeyard_mve_spread_3:
    spread 3
    .size edgeyard_mve_spread_3, . - edgeyard_mve_spread_3

    .section .text.edgeyard_mve_spread_4,"ax",%progbits
    .global edgeyard_mve_spread_4
    .type edgeyard_mve_spread_4, %function
    .thumb_func
    .p2align 2
edgeyard_mve_spread_4:
    spread 4
    .size edgeyard_mve_spread_4, . - edgeyard_mve_spread_4

@ void edgeyard_mve_interleave(const int8_t *from, int8_t *to, size_t columns): a line of one channel to every fourth byte.
    .section .text.edgeyard_mve_interleave,"ax",%progbits
    .global edgeyard_mve_interleave
    .type edgeyard_mve_interleave, %function
    .thumb_func
    .p2align 2
edgeyard_mve_interleave:
    push {r7, lr}
    mov r12, #0
    vidup.u16 q1, r12, #4
    dlstp.16 lr, r2
1:  vldrb.u16 q0, [r0], #8
    vstrb.16 q0, [r1, q1]
    add.w r1, r1, #32
    letp lr, 1b
    pop {r7, pc}
    .size edgeyard_mve_interleave, . - edgeyard_mve_interleave

@ void edgeyard_mve_tile_weights(const int8_t *from, int8_t *to, size_t channels): the 3x3 windows of eight channels to the first 64 bytes
@ of their entries, where a plane has columns of four lines: a window at its first line and column; one line down; one column on; both.
    .macro tile_tap step
    vldrb.u16 q0, [r0]
    add r0, r2
    vstrb.16 q0, [r1, q4]
    vstrb.16 q0, [r1, q5]
    vstrb.16 q0, [r1, q6]
    vstrb.16 q0, [r1, q7]
    add.w r1, r1, #\step
    .endm

    .section .text.edgeyard_mve_tile_weights,"ax",%progbits
    .global edgeyard_mve_tile_weights
    .type edgeyard_mve_tile_weights, %function
    .thumb_func
    .p2align 2
edgeyard_mve_tile_weights:
    vpush {d8-d15}
    mov r12, #0
    vidup.u16 q4, r12, #1
    mov r12, #96
    vmul.i16 q4, q4, r12
    mov r12, #17
    vadd.i16 q5, q4, r12
    mov r12, #36
    vadd.i16 q6, q4, r12
    vadd.i16 q7, q5, r12
    .rept 3
    tile_tap 4
    tile_tap 4
    tile_tap -7
    .endr
    vpop {d8-d15}
    bx lr
    .size edgeyard_mve_tile_weights, . - edgeyard_mve_tile_weights

@ void edgeyard_mve_tiles_S(const TileArguments *), edgeyard_mve_tiles_S_clamp: two lines of output of 3x3 windows with stride S over
@ eight channels, four pixels of each line at a time.
@ r0 r2 r4 r6 sums of q0, r8 r10 r12 lr of q1, r1 plane, r3 entry, r5 output, r7 groups, r9 the second line's plane (stride 2),
@ r11 bytes to the next output; q3 places of the outputs, q4-q7 windows
    .macro tile_group stride, clamp
    .if \stride == 1
    vldrw.u32 q0, [r1], #16
    vmladav.s8 r0, q0, q4
    vmladav.s8 r2, q0, q5
    vmladav.s8 r4, q0, q6
    vmladav.s8 r6, q0, q7
    vldrw.u32 q0, [r1, #-8]
    vmladav.s8 r8, q0, q4
    vmladav.s8 r10, q0, q5
    vmladav.s8 r12, q0, q6
    vmladav.s8 lr, q0, q7
    .else
    vldrw.u32 q0, [r1], #32
    vmladav.s8 r0, q0, q4
    vldrw.u32 q1, [r1, #-24]
    vmladav.s8 r2, q1, q4
    vldrw.u32 q0, [r1, #-16]
    vmladav.s8 r4, q0, q4
    vldrw.u32 q1, [r1, #-8]
    vmladav.s8 r6, q1, q4
    vldrw.u32 q0, [r9], #32
    vmladav.s8 r8, q0, q4
    vldrw.u32 q1, [r9, #-24]
    vmladav.s8 r10, q1, q4
    vldrw.u32 q0, [r9, #-16]
    vmladav.s8 r12, q0, q4
    vldrw.u32 q1, [r9, #-8]
    vmladav.s8 lr, q1, q4
    .endif
    collect
    ldm r3, {r0, r2, r4, r6, r8}
    vadd.i32 q0, q0, r0
    vadd.i32 q1, q1, r0
    vqrdmulh.s32 q0, q0, r2
    vqrdmulh.s32 q1, q1, r2
    lower q0, r6
    lower q1, r6
    vrshl.s32 q0, r4
    vrshl.s32 q1, r4
    narrow r8
    .if \clamp
    vldrw.u32 q1, [sp, #16]
    vldrw.u32 q2, [sp, #32]
    vmax.s16 q0, q0, q1
    vmin.s16 q0, q0, q2
    .else
    vqmovnb.s16 q0, q0
    .endif
    vstrb.16 q0, [r5, q3]
    add r5, r11
    .endm

@ On the stack: planes, output, end of the entries, arguments; low; high.
    .macro tiles stride, clamp
    push {r4-r11, lr}
    vpush {d8-d15}
    sub sp, #52
    ldrd r1, r3, [r0, #0]
    ldrd r5, r11, [r0, #8]
    ldrd r2, r4, [r0, #36]
    ldr r6, [r0, #44]
    vdup.16 q0, r2
    vdup.16 q1, r4
    vstrw.32 q0, [sp, #16]
    vstrw.32 q1, [sp, #32]
    vldrh.u16 q3, [r6]
    add r6, r3, #768
    strd r1, r5, [sp]
    strd r6, r0, [sp, #8]
1:  ldr r0, [sp, #12]
    vldrw.u32 q4, [r3], #64
    ldr r7, [r0, #16]
    .if \stride == 1
    vldrw.u32 q5, [r3, #-48]
    vldrw.u32 q6, [r3, #-32]
    vldrw.u32 q7, [r3, #-16]
    .else
    ldr r2, [r0, #32]
    add r9, r1, r2
    .endif
2:  tile_group \stride, \clamp
    subs r7, #1
    bne 2b
    ldr r0, [sp, #12]
    ldrd r2, r4, [r0, #20]
    cmp r4, #0
    beq.w 3f
    sub r1, r2
    sub r9, r2
    sub r5, r4
    tile_group \stride, \clamp
3:  ldrd r1, r5, [sp]
    ldrd r4, r0, [sp, #8]
    ldr r2, [r0, #28]
    adds r5, #1
    add r1, r2
    add r3, r3, #32
    strd r1, r5, [sp]
    cmp r3, r4
    bne 1b
    add sp, #52
    vpop {d8-d15}
    pop {r4-r11, pc}
    .endm

    .section .text.edgeyard_mve_tiles_1,"ax",%progbits
    .global edgeyard_mve_tiles_1
    .type edgeyard_mve_tiles_1, %function
    .thumb_func
    .p2align 2
edgeyard_mve_tiles_1:
    tiles 1, 0
    .size edgeyard_mve_tiles_1, . - edgeyard_mve_tiles_1

    .section .text.edgeyard_mve_tiles_1_clamp,"ax",%progbits
    .global edgeyard_mve_tiles_1_clamp
    .type edgeyard_mve_tiles_1_clamp, %function
    .thumb_func
    .p2align 2
edgeyard_mve_tiles_1_clamp:
    tiles 1, 1
    .size edgeyard_mve_tiles_1_clamp, . - edgeyard_mve_tiles_1_clamp

    .section .text.edgeyard_mve_tiles_2,"ax",%progbits
    .global edgeyard_mve_tiles_2
    .type edgeyard_mve_tiles_2, %function
    .thumb_func
    .p2align 2
edgeyard_mve_tiles_2:
    tiles 2, 0
    .size edgeyard_mve_tiles_2, . - edgeyard_mve_tiles_2

    .section .text.edgeyard_mve_tiles_2_clamp,"ax",%progbits
    .global edgeyard_mve_tiles_2_clamp
    .type edgeyard_mve_tiles_2_clamp, %function
    .thumb_func
    .p2align 2
edgeyard_mve_tiles_2_clamp:
    tiles 2, 1
    .size edgeyard_mve_tiles_2_clamp, . - edgeyard_mve_tiles_2_clamp
    .text
