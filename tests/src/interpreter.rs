//! Runs BPF instructions one by one, and counts them: the kernel reports the time that a program took, not the number
//! of its instructions. Panics at an instruction that knockgate's compiler does not emit.
//!
//! Memory is a list of regions. An address names a region and an offset in it; an access beyond the region panics.

#![expect(
    clippy::cast_possible_truncation,
    reason = "narrow instructions take the low bits of a register"
)]

use std::mem;

use aya_obj::generated::bpf_insn;

/// The kernel as the program sees it.
pub trait World {
    /// Calls a helper by its number in `linux/bpf.h`.
    fn help(&mut self, memory: &mut Memory, helper: i32, arguments: [u64; 5]) -> u64;

    /// Returns the address of the only value of a table that holds constants.
    fn constants(&mut self, memory: &mut Memory, table: i32) -> u64;
}

/// The result of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub answer: u64,
    /// Instructions executed; a call of a helper counts as one.
    pub instructions: u64,
}

/// The memory that a program can access. Addresses fit 32 bits, as the bounds of a packet in its context must.
#[derive(Debug, Default)]
pub struct Memory {
    regions: Vec<Vec<u8>>,
}

/// Each region begins at a multiple of this, and is shorter than this.
const REGION: u64 = 1 << 20;
const STACK: usize = 512;
/// The most instructions of a run; a program with more is taken to hang.
const MOST: u64 = 1_000_000;

impl Memory {
    /// Adds a region. Returns its address.
    pub fn add(&mut self, bytes: Vec<u8>) -> u64 {
        assert!((bytes.len() as u64) < REGION, "a region is under 1 MiB");
        self.regions.push(bytes);
        self.regions.len() as u64 * REGION
    }

    /// Removes the region at an address. Pointers into it are out of bounds from then on.
    pub fn take(&mut self, begin: u64) -> Vec<u8> {
        assert_eq!(begin % REGION, 0, "no region begins at {begin:#x}");
        let region = usize::try_from(begin / REGION).expect("64 bits");
        mem::take(&mut self.regions[region - 1])
    }

    /// Returns `length` bytes at an address.
    pub fn at(&mut self, address: u64, length: usize) -> &mut [u8] {
        let place = usize::try_from(address % REGION).expect("64 bits");
        let region = usize::try_from(address / REGION).expect("64 bits");
        let region = region
            .checked_sub(1)
            .and_then(|at| self.regions.get_mut(at));
        region
            .and_then(|region| region.get_mut(place..place + length))
            .unwrap_or_else(|| panic!("{length} bytes at {address:#x} are out of bounds"))
    }

    fn load(&mut self, address: u64, length: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes[..length].copy_from_slice(self.at(address, length));
        u64::from_le_bytes(bytes)
    }

    fn store(&mut self, address: u64, length: usize, value: u64) {
        let bytes = &value.to_le_bytes()[..length];
        self.at(address, length).copy_from_slice(bytes);
    }
}

/// Runs a program, whose calls have been relocated, with the address of its context.
pub fn run(code: &[bpf_insn], memory: &mut Memory, world: &mut dyn World, context: u64) -> Run {
    let mut machine = Machine {
        code,
        memory,
        world,
        registers: [0; 11],
        next: 0,
        callers: Vec::new(),
    };
    machine.registers[1] = context;
    machine.enter(0);
    let mut instructions = 0;
    loop {
        instructions += 1;
        assert!(instructions <= MOST, "the program does not end");
        if machine.step() {
            return Run {
                answer: machine.registers[0],
                instructions,
            };
        }
    }
}

struct Machine<'m> {
    code: &'m [bpf_insn],
    memory: &'m mut Memory,
    world: &'m mut dyn World,
    registers: [u64; 11],
    /// Index of the next instruction.
    next: usize,
    /// For each caller, where it continues, and its registers r6 to r10.
    callers: Vec<(usize, [u64; 5])>,
}

/// The half of a register that 32-bit instructions use.
const LOW: u64 = 0xffff_ffff;

impl Machine<'_> {
    /// Executes one instruction (RFC 9669). Returns whether the program has ended.
    fn step(&mut self) -> bool {
        let instruction = self.code[self.next];
        self.next += 1;
        let code = instruction.code;
        let target = usize::from(instruction.dst_reg());
        let (value, source) = (
            self.registers[target],
            self.registers[usize::from(instruction.src_reg())],
        );
        let immediate = i64::from(instruction.imm).cast_unsigned();
        let there = |base: u64| base.wrapping_add_signed(instruction.off.into());
        let length = [4, 2, 1, 8][usize::from(code >> 3 & 3)];
        // The second operand of arithmetic and jumps.
        let operand = if code & 8 == 0 { immediate } else { source };
        match (code & 7, code & 0xe0) {
            (0, _) if code == 0x18 => self.registers[target] = self.wide(instruction),
            (1, 0x60) => self.registers[target] = self.memory.load(there(source), length),
            (2, 0x60) => self.memory.store(there(value), length, immediate),
            (3, 0x60) => self.memory.store(there(value), length, source),
            (3, 0xc0) => self.atomic(instruction, there(value), length),
            (4, _) if code & 0xf0 == 0xd0 => {
                self.registers[target] = swapped(value, instruction.imm, code & 8 != 0);
            }
            (4, _) => {
                let shifted = (value as i32) >> (operand & 31);
                let shifted = i64::from(shifted).cast_unsigned();
                let (value, operand) = (value & LOW, operand & LOW);
                self.registers[target] = arithmetic(code, value, operand, 31, shifted) & LOW;
            }
            (7, _) => {
                let shifted = (value.cast_signed() >> (operand & 63)).cast_unsigned();
                self.registers[target] = arithmetic(code, value, operand, 63, shifted);
            }
            (5, _) if code == 0x95 => return self.leave(),
            (5, _) if code == 0x85 => self.call(instruction),
            (5, _) => {
                let signed = (value.cast_signed(), operand.cast_signed());
                self.jump(instruction, (value, operand), signed);
            }
            (6, _) => {
                let signed = (i64::from(value as i32), i64::from(operand as i32));
                self.jump(instruction, (value & LOW, operand & LOW), signed);
            }
            _ => panic!("instruction {code:#x} is not known here"),
        }
        false
    }

    /// Loads a 64-bit constant, which takes up two instructions, or the address of a table.
    fn wide(&mut self, instruction: bpf_insn) -> u64 {
        let high = self.code[self.next].imm;
        self.next += 1;
        let low = instruction.imm;
        match instruction.src_reg() {
            0 => u64::from(high.cast_unsigned()) << 32 | u64::from(low.cast_unsigned()),
            // A table: the number by which it was relocated, which helpers take.
            1 => u64::from(low.cast_unsigned()),
            2 => {
                let begin = self.world.constants(self.memory, low);
                begin + u64::from(high.cast_unsigned())
            }
            other => panic!("a wide constant of kind {other} is not known here"),
        }
    }

    fn atomic(&mut self, instruction: bpf_insn, address: u64, length: usize) {
        let before = self.memory.load(address, length);
        let source = usize::from(instruction.src_reg());
        let operand = self.registers[source];
        match instruction.imm {
            // BPF_ADD, BPF_ADD | BPF_FETCH
            0x00 | 0x01 => {
                let sum = before.wrapping_add(operand);
                self.memory.store(address, length, sum);
                if instruction.imm == 0x01 {
                    self.registers[source] = before;
                }
            }
            // BPF_CMPXCHG
            0xf1 => {
                let wanted = self.registers[0];
                let wanted = if length == 4 { wanted & LOW } else { wanted };
                if before == wanted {
                    self.memory.store(address, length, operand);
                }
                self.registers[0] = before;
            }
            other => panic!("atomic operation {other:#x} is not known here"),
        }
    }

    fn jump(&mut self, instruction: bpf_insn, unsigned: (u64, u64), signed: (i64, i64)) {
        let (left, right) = unsigned;
        let (left_signed, right_signed) = signed;
        let taken = match instruction.code & 0xf0 {
            0x00 => true,
            0x10 => left == right,
            0x20 => left > right,
            0x30 => left >= right,
            0x40 => left & right != 0,
            0x50 => left != right,
            0x60 => left_signed > right_signed,
            0x70 => left_signed >= right_signed,
            0xa0 => left < right,
            0xb0 => left <= right,
            0xc0 => left_signed < right_signed,
            0xd0 => left_signed <= right_signed,
            other => panic!("jump {other:#x} is not known here"),
        };
        if taken {
            self.go(instruction.off.into());
        }
    }

    fn go(&mut self, by: isize) {
        self.next = self.next.checked_add_signed(by).expect("within the code");
    }

    fn call(&mut self, instruction: bpf_insn) {
        match instruction.src_reg() {
            0 => {
                let arguments = self.five_from(1);
                self.registers[0] = self.world.help(self.memory, instruction.imm, arguments);
            }
            1 => {
                self.callers.push((self.next, self.five_from(6)));
                let by = isize::try_from(instruction.imm).expect("64 bits");
                self.go(by);
                self.enter(self.next);
            }
            other => panic!("a call of kind {other} is not known here"),
        }
    }

    fn five_from(&self, first: usize) -> [u64; 5] {
        let five = self.registers[first..].first_chunk();
        *five.expect("there are eleven")
    }

    /// Calls a function, which gets a stack frame of its own.
    fn enter(&mut self, at: usize) {
        self.next = at;
        self.registers[10] = self.memory.add(vec![0; STACK]) + STACK as u64;
    }

    /// Returns to the caller. Returns whether there was none.
    fn leave(&mut self) -> bool {
        let Some((next, registers)) = self.callers.pop() else {
            return true;
        };
        self.next = next;
        self.registers[6..].copy_from_slice(&registers);
        false
    }
}

/// Computes an arithmetic instruction. `shifted`: the value shifted right by the operand, with its sign. `most`: the
/// mask of a shift's operand.
fn arithmetic(code: u8, value: u64, operand: u64, most: u64, shifted: u64) -> u64 {
    let bits = operand & most;
    match code & 0xf0 {
        0x00 => value.wrapping_add(operand),
        0x10 => value.wrapping_sub(operand),
        0x20 => value.wrapping_mul(operand),
        0x30 => value.checked_div(operand).unwrap_or(0),
        0x40 => value | operand,
        0x50 => value & operand,
        0x60 => value << bits,
        0x70 => value >> bits,
        0x80 => value.wrapping_neg(),
        0x90 => value.checked_rem(operand).unwrap_or(value),
        0xa0 => value ^ operand,
        0xb0 => operand,
        0xc0 => shifted,
        other => panic!("arithmetic {other:#x} is not known here"),
    }
}

/// Returns the low bits of a value in little or big-endian order.
fn swapped(value: u64, bits: i32, big: bool) -> u64 {
    match (bits, big) {
        (16, true) => (value as u16).swap_bytes().into(),
        (32, true) => (value as u32).swap_bytes().into(),
        (64, true) => value.swap_bytes(),
        (16, false) => (value as u16).into(),
        (32, false) => (value as u32).into(),
        (64, false) => value,
        _ => panic!("a swap of {bits} bits is not known here"),
    }
}
