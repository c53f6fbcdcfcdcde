@ Loops for the DSP extension. Arguments come as a structure that is copied to the stack, since the loops want every register.
@ See dsp.rs for what the structures and buffers hold.

    .syntax unified
    .text

@ Scales a doubled sum: high multiplication, rounding shift away from zero with the zero point, saturation.
    .macro scale sum, multiplier, shift, lift
    smmulr \sum, \sum, \multiplier
    add \sum, \sum, \sum, asr #31
    add \sum, \sum, \lift
    asr \sum, \sum, \shift
    ssat \sum, #8, \sum
    .endm

    .macro bound sum, low, high
    cmp \sum, \low
    it lt
    movlt \sum, \low
    cmp \sum, \high
    it gt
    movgt \sum, \high
    .endm

@ void edgeyard_dsp_expand_N(const int8_t *from, uint32_t *to, size_t groups): groups of four values as doubled pairs, one row of N.
    .macro expand step
    ldr r3, [r0], #4
    sxtb16 r12, r3
    sxtb16 r3, r3, ror #8
    sadd16 r12, r12, r12
    sadd16 r3, r3, r3
    strd r12, r3, [r1], #\step
    .endm

    .macro expand_rows step
    lsrs r2, #1
    bcc 1f
    expand \step
1:  cbz r2, 3f
2:  expand \step
    expand \step
    subs r2, #1
    bne 2b
3:  bx lr
    .endm

    .section .text.edgeyard_dsp_expand,"ax",%progbits
    .global edgeyard_dsp_expand_4
    .type edgeyard_dsp_expand_4, %function
    .thumb_func
    .p2align 2
edgeyard_dsp_expand_4:
    expand_rows 32
    .size edgeyard_dsp_expand_4, . - edgeyard_dsp_expand_4

    .global edgeyard_dsp_expand_1
    .type edgeyard_dsp_expand_1, %function
    .thumb_func
    .p2align 2
edgeyard_dsp_expand_1:
    expand_rows 8
    .size edgeyard_dsp_expand_1, . - edgeyard_dsp_expand_1

@ void edgeyard_dsp_expand_line(const int8_t *from, uint32_t *to, size_t columns, size_t step, size_t blocks, size_t gap): groups of four
@ channels of each column as pairs, not doubled, block after block; `gap` bytes follow each.
    .macro expand_column
    ldr r4, [r0]
    add r0, r3
    sxtb16 r12, r4
    sxtb16 r4, r4, ror #8
    strd r12, r4, [r1], #8
    .endm

    .global edgeyard_dsp_expand_line
    .type edgeyard_dsp_expand_line, %function
    .thumb_func
    .p2align 2
edgeyard_dsp_expand_line:
    push {r4-r8, lr}
    ldrd r5, r6, [sp, #24]
    mov r7, r0
    mov r8, r2
0:  lsrs r2, r8, #1
    bcc 1f
    expand_column
1:  cmp r2, #0
    beq 3f
2:  expand_column
    expand_column
    subs r2, #1
    bne 2b
3:  add r1, r6
    adds r7, #4
    mov r0, r7
    subs r5, #1
    bne 0b
    pop {r4-r8, pc}
    .size edgeyard_dsp_expand_line, . - edgeyard_dsp_expand_line

@ void edgeyard_dsp_rows_4(const RowsArguments *): four rows of input times all rows of weights.
@ r0-r3 sums, r4 input, r5 weights, r6-r7 weights as pairs, r8-r11 input pairs, r12 count, lr channel
    .macro four_products
    ldr r6, [r5], #4
    ldm r4!, {r8-r11}
    sxtb16 r7, r6, ror #8
    sxtb16 r6, r6
    smlad r0, r8, r6, r0
    smlad r0, r9, r7, r0
    smlad r1, r10, r6, r1
    smlad r1, r11, r7, r1
    ldm r4!, {r8-r11}
    smlad r2, r8, r6, r2
    smlad r2, r9, r7, r2
    smlad r3, r10, r6, r3
    smlad r3, r11, r7, r3
    .endm

    .section .text.edgeyard_dsp_rows_4,"ax",%progbits
    .global edgeyard_dsp_rows_4
    .type edgeyard_dsp_rows_4, %function
    .thumb_func
    .p2align 2
edgeyard_dsp_rows_4:
    push {r4-r11, lr}
    sub sp, #52
    ldm r0!, {r1-r11}
    ldr r0, [r0]
    stm sp, {r1-r11}
    str r0, [sp, #44]
    mov r5, r2
    mov lr, r3
1:  ldr r0, [lr], #4
    ldr r6, [sp, #28]
    ldr r4, [sp, #0]
    ldr r12, [sp, #24]
    mov r1, r0
    mov r2, r0
    mov r3, r0
    cbnz r6, 3f
2:  four_products
3:  four_products
    subs r12, #1
    bne 2b
    ldm lr!, {r6-r8}
    scale r0, r6, r7, r8
    scale r1, r6, r7, r8
    scale r2, r6, r7, r8
    scale r3, r6, r7, r8
    ldr r6, [sp, #44]
    cbz r6, 4f
    ldrd r6, r7, [sp, #36]
    bound r0, r6, r7
    bound r1, r6, r7
    bound r2, r6, r7
    bound r3, r6, r7
4:  ldrd r8, r9, [sp, #16]
    add r10, r8, r9
    strb r0, [r8]
    strb r1, [r8, r9]
    strb r2, [r8, r9, lsl #1]
    strb r3, [r10, r9, lsl #1]
    adds r8, #1
    str r8, [sp, #16]
    ldr r6, [sp, #32]
    ldr r7, [sp, #12]
    sub r5, r5, r6
    cmp lr, r7
    bne 1b
    add sp, #52
    pop {r4-r11, pc}
    .size edgeyard_dsp_rows_4, . - edgeyard_dsp_rows_4

@ void edgeyard_dsp_wide_4(const RowsArguments *): as edgeyard_dsp_rows_4, with weights that are pairs already, in an even number of groups.
    .macro four_wide
    ldm r4!, {r8-r11}
    ldm r5!, {r6, r7}
    smlad r0, r8, r6, r0
    smlad r0, r9, r7, r0
    smlad r1, r10, r6, r1
    smlad r1, r11, r7, r1
    ldm r4!, {r8-r11}
    smlad r2, r8, r6, r2
    smlad r2, r9, r7, r2
    smlad r3, r10, r6, r3
    smlad r3, r11, r7, r3
    .endm

    .section .text.edgeyard_dsp_wide_4,"ax",%progbits
    .global edgeyard_dsp_wide_4
    .type edgeyard_dsp_wide_4, %function
    .thumb_func
    .p2align 2
edgeyard_dsp_wide_4:
    push {r4-r11, lr}
    sub sp, #52
    ldm r0!, {r1-r11}
    ldr r0, [r0]
    stm sp, {r1-r11}
    str r0, [sp, #44]
    mov r5, r2
    mov lr, r3
1:  ldr r0, [lr], #4
    ldr r4, [sp, #0]
    ldr r12, [sp, #24]
    mov r1, r0
    mov r2, r0
    mov r3, r0
2:  four_wide
    four_wide
    subs r12, #1
    bne 2b
    ldm lr!, {r6-r8}
    scale r0, r6, r7, r8
    scale r1, r6, r7, r8
    scale r2, r6, r7, r8
    scale r3, r6, r7, r8
    ldr r6, [sp, #44]
    cbz r6, 4f
    ldrd r6, r7, [sp, #36]
    bound r0, r6, r7
    bound r1, r6, r7
    bound r2, r6, r7
    bound r3, r6, r7
4:  ldrd r8, r9, [sp, #16]
    add r10, r8, r9
    strb r1, [r8, r9]
    strb r2, [r8, r9, lsl #1]
    strb r3, [r10, r9, lsl #1]
    strb r0, [r8], #1
    str r8, [sp, #16]
    ldr r7, [sp, #12]
    cmp lr, r7
    bne 1b
    add sp, #52
    pop {r4-r11, pc}
    .size edgeyard_dsp_wide_4, . - edgeyard_dsp_wide_4

@ void edgeyard_dsp_rows_1(const RowsArguments *): one row of input times all rows of weights, two at a time.
@ r0-r1 sums, r2 input, r3-r4 weights, r5-r8 weights as pairs, r9-r10 input pairs, r12 count, lr channel
    .macro one_product
    ldr r5, [r3], #4
    ldr r7, [r4], #4
    ldrd r9, r10, [r2], #8
    sxtb16 r6, r5, ror #8
    sxtb16 r5, r5
    sxtb16 r8, r7, ror #8
    sxtb16 r7, r7
    smlad r0, r9, r5, r0
    smlad r0, r10, r6, r0
    smlad r1, r9, r7, r1
    smlad r1, r10, r8, r1
    .endm

    .section .text.edgeyard_dsp_rows_1,"ax",%progbits
    .global edgeyard_dsp_rows_1
    .type edgeyard_dsp_rows_1, %function
    .thumb_func
    .p2align 2
edgeyard_dsp_rows_1:
    push {r4-r11, lr}
    sub sp, #52
    ldm r0!, {r1-r11}
    ldrd r12, lr, [r0]
    stm sp, {r1-r11}
    strd r12, lr, [sp, #44]
    mov r3, r2
    ldr lr, [sp, #8]
@ the second row starts where the first ends; with one row left it is the first again
1:  ldr r7, [sp, #12]
    ldr r12, [sp, #24]
    ldr r9, [sp, #32]
    ldr r2, [sp, #0]
    ldr r6, [sp, #28]
    add r5, lr, #16
    cmp r5, r7
    mov r4, r3
    itt ne
    ldrne r8, [sp, #48]
    addne r4, r3, r8
    ldr r0, [lr]
    ite ne
    ldrne r1, [lr, #16]
    moveq r1, r0
    cbnz r6, 3f
2:  one_product
3:  one_product
    subs r12, #1
    bne 2b
    ldrd r5, r6, [lr, #4]
    ldr r7, [lr, #12]
    scale r0, r5, r6, r7
    ldr r8, [sp, #12]
    add lr, #16
    ldr r2, [sp, #44]
    cmp lr, r8
    bne 5f
@ the last row of an odd number
    cbz r2, 4f
    ldrd r5, r6, [sp, #36]
    bound r0, r5, r6
4:  ldr r8, [sp, #16]
    strb r0, [r8]
    add sp, #52
    pop {r4-r11, pc}
5:  ldrd r5, r6, [lr, #4]
    ldr r7, [lr, #12]
    scale r1, r5, r6, r7
    add lr, #16
    cbz r2, 6f
    ldrd r5, r6, [sp, #36]
    bound r0, r5, r6
    bound r1, r5, r6
6:  ldr r7, [sp, #16]
    ldr r9, [sp, #32]
    strb r0, [r7], #1
    strb r1, [r7], #1
    str r7, [sp, #16]
    sub r3, r4, r9
    cmp lr, r8
    bne 1b
    add sp, #52
    pop {r4-r11, pc}
    .size edgeyard_dsp_rows_1, . - edgeyard_dsp_rows_1

@ void edgeyard_dsp_planes_K_N(const PlanesArguments *): a line of KxK windows with stride N over four channels, two windows at a time.
@ r0-r3 sums of the first window, r4-r7 of the second, r8-r9 input pairs, r10-r11 weight pairs, r12 input, lr weights
    .macro tap column, stride
    ldrd r10, r11, [lr], #8
    ldrd r8, r9, [r12, #(8 * \column)]
    smlabb r0, r8, r10, r0
    smlatt r2, r8, r10, r2
    smlabb r1, r9, r11, r1
    smlatt r3, r9, r11, r3
    ldrd r8, r9, [r12, #(8 * (\column + \stride))]
    smlabb r4, r8, r10, r4
    smlatt r6, r8, r10, r6
    smlabb r5, r9, r11, r5
    smlatt r7, r9, r11, r7
    .endm

@ The pointer to the line moves on for the next two windows.
    .macro line offset, stride, size
    ldr r12, [sp, #\offset]
    add r8, r12, #(16 * \stride)
    str r8, [sp, #\offset]
    tap 0, \stride
    tap 1, \stride
    tap 2, \stride
    .if \size > 3
    tap 3, \stride
    tap 4, \stride
    .endif
    .if \size > 5
    tap 5, \stride
    tap 6, \stride
    .endif
    .endm

    .macro join first, second, third, fourth
    bfi \first, \second, #8, #8
    bfi \first, \third, #16, #8
    bfi \first, \fourth, #24, #8
    .endm

    .macro planes stride, size
    push {r4-r11, lr}
    sub sp, #60
    ldm r0!, {r1-r11}
    stm sp, {r1-r11}
    ldm r0, {r1-r4}
    add r0, sp, #44
    stm r0, {r1-r4}
1:  ldr r12, [sp, #32]
    ldr lr, [sp, #28]
    ldm r12, {r0-r3}
    mov r4, r0
    mov r5, r1
    mov r6, r2
    mov r7, r3
    line 0, \stride, \size
    line 4, \stride, \size
    line 8, \stride, \size
    .if \size > 3
    line 12, \stride, \size
    line 16, \stride, \size
    .endif
    .if \size > 5
    line 20, \stride, \size
    line 24, \stride, \size
    .endif
    ldr r12, [sp, #32]
    adds r12, #16
    ldm r12!, {r8-r10}
    scale r0, r8, r9, r10
    scale r4, r8, r9, r10
    ldm r12!, {r8-r10}
    scale r1, r8, r9, r10
    scale r5, r8, r9, r10
    ldm r12!, {r8-r10}
    scale r2, r8, r9, r10
    scale r6, r8, r9, r10
    ldm r12!, {r8-r10}
    scale r3, r8, r9, r10
    scale r7, r8, r9, r10
    join r0, r1, r2, r3
    join r4, r5, r6, r7
    ldr r1, [sp, #56]
    cbz r1, 2f
    ldrd r8, r9, [sp, #48]
    ssub8 r1, r0, r8
    sel r0, r0, r8
    ssub8 r1, r9, r0
    sel r0, r0, r9
    ssub8 r1, r4, r8
    sel r4, r4, r8
    ssub8 r1, r9, r4
    sel r4, r4, r9
2:  ldrd r1, r2, [sp, #36]
    ldr r3, [sp, #44]
    str r0, [r1]
    str r4, [r1, r2]
    add r1, r1, r2, lsl #1
    subs r3, #1
    str r1, [sp, #36]
    str r3, [sp, #44]
    bne.w 1b
    add sp, #60
    pop {r4-r11, pc}
    .endm

    .section .text.edgeyard_dsp_planes_3_1,"ax",%progbits
    .global edgeyard_dsp_planes_3_1
    .type edgeyard_dsp_planes_3_1, %function
    .thumb_func
    .p2align 2
edgeyard_dsp_planes_3_1:
    planes 1, 3
    .size edgeyard_dsp_planes_3_1, . - edgeyard_dsp_planes_3_1

    .section .text.edgeyard_dsp_planes_3_2,"ax",%progbits
    .global edgeyard_dsp_planes_3_2
    .type edgeyard_dsp_planes_3_2, %function
    .thumb_func
    .p2align 2
edgeyard_dsp_planes_3_2:
    planes 2, 3
    .size edgeyard_dsp_planes_3_2, . - edgeyard_dsp_planes_3_2

    .section .text.edgeyard_dsp_planes_5_1,"ax",%progbits
    .global edgeyard_dsp_planes_5_1
    .type edgeyard_dsp_planes_5_1, %function
    .thumb_func
    .p2align 2
edgeyard_dsp_planes_5_1:
    planes 1, 5
    .size edgeyard_dsp_planes_5_1, . - edgeyard_dsp_planes_5_1

    .section .text.edgeyard_dsp_planes_5_2,"ax",%progbits
    .global edgeyard_dsp_planes_5_2
    .type edgeyard_dsp_planes_5_2, %function
    .thumb_func
    .p2align 2
edgeyard_dsp_planes_5_2:
    planes 2, 5
    .size edgeyard_dsp_planes_5_2, . - edgeyard_dsp_planes_5_2

    .section .text.edgeyard_dsp_planes_7_1,"ax",%progbits
    .global edgeyard_dsp_planes_7_1
    .type edgeyard_dsp_planes_7_1, %function
    .thumb_func
    .p2align 2
edgeyard_dsp_planes_7_1:
    planes 1, 7
    .size edgeyard_dsp_planes_7_1, . - edgeyard_dsp_planes_7_1

    .section .text.edgeyard_dsp_planes_7_2,"ax",%progbits
    .global edgeyard_dsp_planes_7_2
    .type edgeyard_dsp_planes_7_2, %function
    .thumb_func
    .p2align 2
edgeyard_dsp_planes_7_2:
    planes 2, 7
    .size edgeyard_dsp_planes_7_2, . - edgeyard_dsp_planes_7_2
    .text
