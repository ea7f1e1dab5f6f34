//! Amounts of money: decimal text in, decimal text out, exact in between and rounded once.
//!
//! Never by way of a cross rate: that one is rounded already, and twenty digits of an amount would
//! show it.

use std::cmp::Ordering;

use num_bigint::BigUint;
use rust_decimal::Decimal;

use super::Currency;

/// Twenty before the point and twenty behind it: more than all the money there is, in any unit.
pub const MAX_DIGITS: usize = 40;

/// A decimal number, kept digit by digit: `digits` × 10^−`scale`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Amount {
    negative: bool,
    digits: BigUint,
    scale: u32,
}

/// How many of one currency another one buys, not yet divided.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio {
    pub(super) to: Decimal,
    pub(super) from: Decimal,
}

impl Ratio {
    /// A currency against itself.
    pub const ONE: Self = Self { to: Decimal::ONE, from: Decimal::ONE };
}

/// How many decimals an amount is rounded to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale(u32);

impl Scale {
    /// As many as a rate has at the most.
    pub const MAX: u32 = Decimal::MAX_SCALE;

    /// `Err` says in words what was expected.
    pub fn new(decimals: i64) -> Result<Self, String> {
        match u32::try_from(decimals) {
            Ok(decimals) if decimals <= Self::MAX => Ok(Self(decimals)),
            _ => Err(format!("{decimals} decimals are not between 0 and {}", Self::MAX)),
        }
    }

    /// The minor unit of ISO 4217: yen have 0 decimals, euro 2, Bahraini dinar 3. `None` for what has none there
    /// (XAU), or is not in its list of currencies in force (BTC; HRK, which was withdrawn: of those ISO publishes no
    /// minor unit): a guess would be somebody's money.
    pub fn of(currency: Currency) -> Option<Self> {
        use iso_currency::Currency as Listed;

        let listed = Listed::from_code(currency.code())?;
        // The list has VES beside VED.
        let withdrawn = listed.is_superseded().is_some() && listed != Listed::VES;
        if withdrawn {
            return None;
        }
        listed.exponent().map(|decimals| Self(decimals.into()))
    }
}

/// Where to, when both neighbours are equally near.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rounding {
    /// To the even one, so that many roundings do not add up.
    #[default]
    HalfEven,
    /// Away from zero, as taught at school and asked for by tax offices.
    HalfUp,
}

impl Amount {
    /// Sign, digits, fraction. No exponent, space or thousands separator: which one of "1.234" and
    /// "1,234" is a thousand nobody knows. `Err` is the sentence of a `\ValueError`.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let (negative, number) = match text {
            [b'-', number @ ..] => (true, number),
            [b'+', number @ ..] => (false, number),
            number => (false, number),
        };
        let point = number.iter().position(|byte| *byte == b'.');
        let (whole, fraction) = match point {
            Some(point) => (&number[..point], &number[point + 1..]),
            None => (number, &b""[..]),
        };
        let digits = [whole, fraction].concat();
        let complete = !whole.is_empty() && (point.is_none() || !fraction.is_empty());
        let number = digits.iter().all(u8::is_ascii_digit).then_some(&digits);
        match number.filter(|_| complete).and_then(|digits| BigUint::parse_bytes(digits, 10)) {
            Some(number) if digits.len() <= MAX_DIGITS => {
                Ok(Self { negative, digits: number, scale: fraction.len() as u32 })
            }
            Some(_) => Err(format!(
                "the amount has {} digits, expected at most {MAX_DIGITS}",
                digits.len()
            )),
            None => Err(format!(
                "{} is not an amount, expected digits with a point before the decimals and no \
                 exponent, space or thousands separator, such as -1234.50",
                super::quoted(&String::from_utf8_lossy(text))
            )),
        }
    }

    /// The amount in the other currency, with exactly `scale` decimals. Zero has no sign.
    pub fn convert(&self, ratio: Ratio, scale: Scale, rounding: Rounding) -> String {
        let mut above = &self.digits * ratio.to.mantissa().unsigned_abs();
        let mut below = BigUint::from(ratio.from.mantissa().unsigned_abs());
        // Counted in units of the last decimal, which is what gets rounded.
        let (raise, lower) = (ratio.from.scale() + scale.0, ratio.to.scale() + self.scale);
        match raise.cmp(&lower) {
            Ordering::Greater => above *= power_of_ten(raise - lower),
            Ordering::Less => below *= power_of_ten(lower - raise),
            Ordering::Equal => {}
        }
        let mut units = &above / &below;
        let left = above - &units * &below;
        let up = match (left << 1_u32).cmp(&below) {
            Ordering::Less => false,
            Ordering::Equal => rounding == Rounding::HalfUp || units.bit(0),
            Ordering::Greater => true,
        };
        units += u32::from(up);
        decimal(self.negative && units != BigUint::ZERO, &units, scale)
    }
}

fn power_of_ten(exponent: u32) -> BigUint {
    BigUint::from(10_u32).pow(exponent)
}

fn decimal(negative: bool, units: &BigUint, Scale(scale): Scale) -> String {
    let sign = if negative { "-" } else { "" };
    let decimals = scale as usize;
    // One digit before the point at the least.
    let digits = format!("{:0>1$}", units.to_string(), decimals + 1);
    let (whole, fraction) = digits.split_at(digits.len() - decimals);
    let point = if fraction.is_empty() { "" } else { "." };
    [sign, whole, point, fraction].concat()
}

#[cfg(test)]
mod tests;
