//! Exchange rates: exact decimals of one source at one time, and what follows from them.

use std::fmt;

use rust_decimal::Decimal;

mod age;
mod amount;
mod ecb;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod guard;
pub mod holding;
pub mod quota;
pub mod refresher;
pub mod rules;
mod sheet;
pub mod shelf;
mod source;
mod typical;

pub use age::Age;
pub use amount::{Amount, Ratio, Rounding, Scale};
pub use sheet::Sheet;
pub use source::{Feed, Fetch, FetchError, Fetched, Source, Validators, parse_list};

/// Bytes of a source's answer at most. The Open Exchange Rates sheet has 5 KB, the ECB's file of 90
/// days 200 KB; anything longer is not a sheet.
pub const MAX_DOCUMENT: usize = 1024 * 1024;

/// Three capital letters, as in ISO 4217. Not checked against its list: sources know more (XAU,
/// BTC), and the list changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency([u8; 3]);

impl Currency {
    /// `Err` is the sentence of a `\ValueError`. Lower case is refused: a code that is spelled
    /// in two ways would be two labels, two cache keys and one bug report.
    pub fn parse(code: &str) -> Result<Self, String> {
        match <[u8; 3]>::try_from(code.as_bytes()) {
            Ok(letters) if letters.iter().all(u8::is_ascii_uppercase) => Ok(Self(letters)),
            _ => Err(format!(
                "{} is not a currency code, expected three capital letters such as EUR",
                quoted(code)
            )),
        }
    }

    pub fn code(&self) -> &str {
        // Three ASCII letters always are text.
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// The float nearest to `rate`. By way of its text, for arithmetic on mantissa and scale would
/// round twice.
pub fn to_f64(rate: Decimal) -> f64 {
    // Decimal text always is a float's text too.
    rate.to_string().parse().unwrap_or(f64::NAN)
}

/// What somebody gave, for a sentence that refuses it.
fn quoted(text: &str) -> String {
    let cut: String = text.chars().take(40).collect();
    format!("{cut:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_three_capital_letters_and_nothing_else() {
        assert_eq!(Currency::parse("EUR").unwrap().to_string(), "EUR");
        for code in ["", "EU", "EURO", "eur", "Eur", "E1R", "EU ", "ÉU", "EUR\0"] {
            let sentence = Currency::parse(code).unwrap_err();
            assert!(sentence.contains("three capital letters"), "{sentence}");
        }
        assert!(Currency::parse(&"x".repeat(9_999)).unwrap_err().len() < 200);
    }

    #[test]
    fn a_float_is_the_one_nearest_to_the_decimal() {
        for text in ["1.1172", "20275.17", "0.1", "0.83380", "1.0000000000000000000000000001"] {
            let exact = Decimal::from_str_exact(text).unwrap();
            assert_eq!(to_f64(exact), text.parse::<f64>().unwrap(), "{text}");
        }
    }
}
