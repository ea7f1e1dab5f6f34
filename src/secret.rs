//! A secret as people hand it over: in a file, in a variable of the environment, as a setting or in an address. An
//! editor puts a line end behind it, or a byte order mark before it, and neither belongs to it.

/// Without line ends and byte order marks around it.
pub fn bare(text: &str) -> &str {
    text.trim_matches(['\r', '\n', '\u{feff}'])
}

/// [`bare`]; `Err` says what is wrong with it, without a word of it.
pub fn one_line(text: &str) -> Result<&str, &'static str> {
    let text = bare(text);
    if text.contains(['\r', '\n', '\0']) {
        return Err("it has more than one line, but must be the password alone");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_editor_puts_around_a_secret_is_not_of_it() {
        for text in ["pw", "pw\n", "pw\r\n", "\u{feff}pw", "\u{feff}pw\r\n", "\npw\n\n"] {
            assert_eq!(one_line(text), Ok("pw"), "{text:?}");
        }
        assert_eq!(one_line(" p w \n"), Ok(" p w "), "spaces may be meant");
        assert_eq!(one_line("\u{feff}\r\n"), Ok(""));
        assert!(one_line("pw\nother\n").is_err());
    }
}
