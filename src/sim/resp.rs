//! What goes over the wire, as the server reads and writes it.

/// What a command answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    Nil,
    /// No lines: the nil of an array.
    NoLines,
    Number(i64),
    Text(Vec<u8>),
    Status(&'static str),
    Error(String),
    Array(Vec<Reply>),
}

impl Reply {
    pub fn text(text: &[u8]) -> Self {
        Self::Text(text.to_vec())
    }

    pub fn number(number: usize) -> Self {
        Self::Number(number as i64)
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        let head = |out: &mut Vec<u8>, mark: u8, number: i64| {
            out.push(mark);
            decimal(out, number);
            out.extend_from_slice(b"\r\n");
        };
        match self {
            Self::Nil => out.extend_from_slice(b"$-1\r\n"),
            Self::NoLines => out.extend_from_slice(b"*-1\r\n"),
            Self::Number(number) => head(out, b':', *number),
            Self::Text(text) => {
                head(out, b'$', text.len() as i64);
                out.extend_from_slice(text);
                out.extend_from_slice(b"\r\n");
            }
            Self::Status(text) => {
                out.push(b'+');
                out.extend_from_slice(text.as_bytes());
                out.extend_from_slice(b"\r\n");
            }
            Self::Error(text) => {
                out.push(b'-');
                out.extend_from_slice(text.as_bytes());
                out.extend_from_slice(b"\r\n");
            }
            Self::Array(parts) => {
                head(out, b'*', parts.len() as i64);
                parts.iter().for_each(|part| part.write(out));
            }
        }
    }
}

fn decimal(out: &mut Vec<u8>, number: i64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = number.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
}

pub fn number(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// One request's words, taken from the front of `bytes`. `None`: it has not come whole.
pub fn request<'a>(bytes: &mut &'a [u8]) -> Option<Vec<&'a [u8]>> {
    let mut rest = *bytes;
    let count = header(&mut rest, b'*')?;
    let mut words = Vec::with_capacity(count);
    for _ in 0..count {
        let length = header(&mut rest, b'$')?;
        if rest.len() < length + 2 {
            return None;
        }
        words.push(&rest[..length]);
        rest = &rest[length + 2..];
    }
    *bytes = rest;
    Some(words)
}

fn header(bytes: &mut &[u8], mark: u8) -> Option<usize> {
    let (first, rest) = bytes.split_first()?;
    assert_eq!(*first, mark, "no request: {:?}", String::from_utf8_lossy(bytes));
    let end = rest.iter().position(|byte| *byte == b'\r')?;
    let number = number(&rest[..end])?;
    *bytes = rest.get(end + 2..)?;
    usize::try_from(number).ok()
}
