//! Atomic operations: a new value from the value there and an operand, without reading it first.
//!
//! Their semantics are FoundationDB's of API level 510 and later, to the byte. Numbers are little
//! endian, unsigned, and as long as the operand: a shorter value is extended with zeros, a longer
//! one is cut. A key without a value takes the operand, except that [`AtomicOp::CompareAndClear`]
//! leaves it without one. An empty value counts as no number for `add`, `or`, `xor` and `max`,
//! which then give the operand, and as zero for `and` and `min`.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::{VALUE_LIMIT, Value};

/// An operation on the value of a key.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum AtomicOp {
    /// The sum; it wraps around. Two's complement makes it subtraction as well.
    Add,
    /// The smaller number.
    Min,
    /// The larger number.
    Max,
    /// Bitwise and.
    And,
    /// Bitwise or.
    Or,
    /// Bitwise exclusive or.
    Xor,
    /// The value followed by the operand, or the value alone where that would be over the limit of
    /// values, 100,000 bytes.
    AppendIfFits,
    /// No value if the value equals the operand, else the value.
    CompareAndClear,
}

impl AtomicOp {
    /// Every operation.
    pub const ALL: [AtomicOp; 8] = [
        AtomicOp::Add,
        AtomicOp::Min,
        AtomicOp::Max,
        AtomicOp::And,
        AtomicOp::Or,
        AtomicOp::Xor,
        AtomicOp::AppendIfFits,
        AtomicOp::CompareAndClear,
    ];

    /// The value afterwards; `None` is no value, before and after.
    #[must_use]
    pub fn apply(self, before: Option<&Value>, operand: &Value) -> Option<Value> {
        let taken = || Some(operand.clone());
        let Some(before) = before else {
            return match self {
                AtomicOp::CompareAndClear => None,
                _ => taken(),
            };
        };
        if self == AtomicOp::CompareAndClear {
            return (before != operand).then(|| before.clone());
        }
        if operand.0.is_empty() {
            return match self {
                AtomicOp::AppendIfFits => Some(before.clone()),
                _ => taken(),
            };
        }
        if before.0.is_empty() && !matches!(self, AtomicOp::And | AtomicOp::Min) {
            return taken();
        }
        match self {
            AtomicOp::Add => Some(add(before, operand)),
            AtomicOp::And => Some(bitwise(before, operand, |a, b| a & b)),
            AtomicOp::Or => Some(bitwise(before, operand, |a, b| a | b)),
            AtomicOp::Xor => Some(bitwise(before, operand, |a, b| a ^ b)),
            AtomicOp::Max | AtomicOp::Min => {
                let resized: Vec<u8> = resized(before, operand.0.len()).collect();
                let number = |bytes: &[u8]| bytes.iter().rev().copied().collect::<Vec<u8>>();
                let operand_wins = match number(&resized).cmp(&number(operand.as_bytes())) {
                    Ordering::Less => self == AtomicOp::Max,
                    Ordering::Greater => self == AtomicOp::Min,
                    Ordering::Equal => true,
                };
                if operand_wins { taken() } else { Some(Value::from(resized)) }
            }
            AtomicOp::AppendIfFits | AtomicOp::CompareAndClear => {
                let fits = before.0.len() + operand.0.len() <= VALUE_LIMIT;
                let whole = || Value::from([before.as_bytes(), operand.as_bytes()].concat());
                Some(if fits { whole() } else { before.clone() })
            }
        }
    }
}

/// The bytes of a number, cut or extended with zeros at its high end.
fn resized(value: &Value, length: usize) -> impl Iterator<Item = u8> + '_ {
    value.as_bytes().iter().copied().chain(std::iter::repeat(0)).take(length)
}

fn bitwise(before: &Value, operand: &Value, op: impl Fn(u8, u8) -> u8) -> Value {
    let pairs = resized(before, operand.0.len()).zip(operand.as_bytes());
    Value::from(pairs.map(|(a, b)| op(a, *b)).collect::<Vec<u8>>())
}

fn add(before: &Value, operand: &Value) -> Value {
    let mut carry = false;
    let pairs = resized(before, operand.0.len()).zip(operand.as_bytes());
    let sum = pairs.map(|(a, b)| {
        let (sum, over) = a.overflowing_add(*b);
        let (sum, over_again) = sum.overflowing_add(u8::from(carry));
        carry = over || over_again;
        sum
    });
    Value::from(sum.collect::<Vec<u8>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(bytes: &[u8]) -> Value {
        Value::from(bytes)
    }

    fn check(op: AtomicOp, before: Option<&[u8]>, operand: &[u8], after: Option<&[u8]>) {
        let (before, after) = (before.map(value), after.map(value));
        let got = op.apply(before.as_ref(), &value(operand));
        assert_eq!(got, after, "{op:?} of {before:?} and {operand:?}");
    }

    #[test]
    fn a_key_without_a_value_takes_the_operand() {
        for op in AtomicOp::ALL {
            let taken = (op != AtomicOp::CompareAndClear).then_some(&b"\x01\x02"[..]);
            check(op, None, b"\x01\x02", taken);
        }
    }

    #[test]
    fn sums_carry_wrap_and_have_the_operands_length() {
        use AtomicOp::Add;
        check(Add, Some(b"\x01\x00"), b"\x02\x00", Some(b"\x03\x00"));
        check(Add, Some(b"\xff\x00"), b"\x01\x00", Some(b"\x00\x01"));
        check(Add, Some(b"\xff\xff"), b"\x01\x00", Some(b"\x00\x00"));
        check(Add, Some(b"\x05\x00"), b"\xff\xff", Some(b"\x04\x00"));
        check(Add, Some(b"\xff"), b"\x01\x00\x00", Some(b"\x00\x01\x00"));
        check(Add, Some(b"\x01\x02\x03"), b"\x01", Some(b"\x02"));
        check(Add, Some(b""), b"\x07\x00", Some(b"\x07\x00"));
        check(Add, Some(b"\x07"), b"", Some(b""));
    }

    #[test]
    fn comparisons_are_of_little_endian_numbers_of_the_operands_length() {
        use AtomicOp::{Max, Min};
        check(Max, Some(b"\x00\x01"), b"\xff\x00", Some(b"\x00\x01"));
        check(Min, Some(b"\x00\x01"), b"\xff\x00", Some(b"\xff\x00"));
        check(Max, Some(b"\x05"), b"\x03\x00", Some(b"\x05\x00"));
        check(Max, Some(b"\x05"), b"\x00\x01", Some(b"\x00\x01"));
        check(Max, Some(b"\x02\xff"), b"\x01", Some(b"\x02"));
        check(Max, Some(b""), b"\x00", Some(b"\x00"));
        check(Max, Some(b"\x09"), b"", Some(b""));
        check(Min, Some(b"\x05"), b"\x03\x00", Some(b"\x03\x00"));
        check(Min, Some(b"\x05"), b"\x00\x01", Some(b"\x05\x00"));
        check(Min, Some(b"\x02\xff"), b"\x03", Some(b"\x02"));
        check(Min, Some(b""), b"\x03\x03", Some(b"\x00\x00"));
        check(Min, Some(b"\x09"), b"", Some(b""));
    }

    #[test]
    fn bits_are_combined_in_the_operands_length() {
        use AtomicOp::{And, Or, Xor};
        check(And, Some(b"\x0f\xff"), b"\x3c", Some(b"\x0c"));
        check(And, Some(b"\x0f"), b"\x3c\xff", Some(b"\x0c\x00"));
        check(And, Some(b""), b"\x3c", Some(b"\x00"));
        check(Or, Some(b"\x0f"), b"\x30\x01", Some(b"\x3f\x01"));
        check(Or, Some(b""), b"\x30", Some(b"\x30"));
        check(Xor, Some(b"\x0f\x01"), b"\x3c", Some(b"\x33"));
        check(Xor, Some(b"\x0f"), b"\x3c\x07", Some(b"\x33\x07"));
        check(Xor, Some(b"\x0f"), b"", Some(b""));
    }

    #[test]
    fn appended_where_it_fits_and_cleared_where_it_is_the_same() {
        use AtomicOp::{AppendIfFits, CompareAndClear};
        check(AppendIfFits, Some(b"ab"), b"cd", Some(b"abcd"));
        check(AppendIfFits, Some(b""), b"cd", Some(b"cd"));
        check(AppendIfFits, Some(b"ab"), b"", Some(b"ab"));
        let (long, longest) = (vec![b'v'; VALUE_LIMIT - 1], vec![b'v'; VALUE_LIMIT]);
        check(AppendIfFits, Some(&long), b"v", Some(&longest));
        check(AppendIfFits, Some(&long), b"vv", Some(&long));
        check(CompareAndClear, Some(b"ab"), b"ab", None);
        check(CompareAndClear, Some(b"ab"), b"ac", Some(b"ab"));
        check(CompareAndClear, Some(b""), b"", None);
    }

    proptest! {
        /// With eight bytes on both sides it is the machine's own arithmetic.
        #[test]
        fn eight_bytes_are_the_machines_numbers(a: u64, b: u64) {
            let bytes = |number: u64| Value::from(&number.to_le_bytes()[..]);
            for (op, expected) in [
                (AtomicOp::Add, a.wrapping_add(b)),
                (AtomicOp::Min, a.min(b)),
                (AtomicOp::Max, a.max(b)),
                (AtomicOp::And, a & b),
                (AtomicOp::Or, a | b),
                (AtomicOp::Xor, a ^ b),
            ] {
                prop_assert_eq!(op.apply(Some(&bytes(a)), &bytes(b)), Some(bytes(expected)));
            }
        }
    }
}
