//! What an operator is told: where a line goes, how it looks, and how often one kind of event is told.
//! Names only, never values; and whatever a name or a message holds, it stays one line.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use log::Level;
use time::OffsetDateTime;

use crate::clock::{Uptime, WallTime};
use crate::process;

/// `sharedstate.log`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sink {
    /// PHP's own error log, which only PHP's threads may write to, within a request.
    Php,
    Stderr,
    /// The socket that the system's logger listens on.
    Syslog,
    File(PathBuf),
}

/// The longest line in bytes: a pipe and an appended file take it in one piece.
const LONGEST: usize = 2_000;

impl Sink {
    /// `None` for what is none.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" => Some(Self::Php),
            "stderr" => Some(Self::Stderr),
            "syslog" => Some(Self::Syslog),
            path => (path.starts_with('/') && !path.contains(char::is_control))
                .then(|| Self::File(path.into())),
        }
    }

    /// One write for one line; waits for nobody. `Unsupported` for [`Sink::Php`].
    pub fn write(&self, level: Level, message: &str, wall: WallTime) -> io::Result<()> {
        let text = line(level, message);
        match self {
            Self::Php => Err(io::ErrorKind::Unsupported.into()),
            Self::Stderr => {
                // A descriptor of our own: the library's lock may be held for ever in a forked child.
                let mut stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
                // Its reader may have stopped, and who mints must not stop with it. A pipe that
                // takes anything takes a line.
                if !process::takes_bytes(stderr.as_fd()) {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                stderr.write_all(format!("{} {text}\n", timestamp(wall)).as_bytes())
            }
            Self::Syslog => to_syslog(Path::new("/dev/log"), level, &text),
            // Opened for every line: lines are rare, and a rotated file is followed at once. A link is
            // followed, too (/dev/stderr is one); the folder is the administrator's.
            Self::File(path) => {
                let mut file = OpenOptions::new()
                    .create(true)
                    .append(true)
                    .mode(0o640)
                    // A pipe that nobody reads is an error, and no wait.
                    .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
                    .open(path)?;
                file.write_all(format!("{} {text}\n", timestamp(wall)).as_bytes())
            }
        }
    }
}

/// RFC 3164 as `syslog(3)` sends it, but without the wait for a logger that is behind. Severities of
/// `log` and syslog differ by two and more.
fn to_syslog(socket: &Path, level: Level, text: &str) -> io::Result<()> {
    const DAEMON: u32 = 3 << 3;
    let sender = UnixDatagram::unbound()?;
    sender.set_nonblocking(true)?;
    sender.send_to(format!("<{}>{text}", DAEMON | severity(level)).as_bytes(), socket).map(drop)
}

/// As syslog(3) counts: 3 is an error, 7 debugging.
pub fn severity(level: Level) -> u32 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// Without a time, which most logs add themselves.
pub fn line(level: Level, message: &str) -> String {
    let level = match level {
        Level::Warn => "warning".to_owned(),
        level => level.as_str().to_ascii_lowercase(),
    };
    let mut line = format!("sharedstate[{}]: {level}: ", std::process::id());
    for c in message.chars() {
        if c.is_control() || reorders(c) {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    if line.len() > LONGEST {
        line.truncate(line.floor_char_boundary(LONGEST - '…'.len_utf8()));
        line.push('…');
    }
    line
}

/// What breaks or reorders a line on the screen, and is no control character to Unicode.
fn reorders(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn timestamp(wall: WallTime) -> String {
    let seconds = wall.unix_millis() / 1000;
    let at = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (year, month, day) = at.to_calendar_date();
    let (hour, minute, second) = at.to_hms();
    format!("{year}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z", u8::from(month))
}

/// A kind of event: the place in the source that tells of it.
pub type Kind = (&'static str, u32);

/// How many lines of a kind are told within [`WINDOW`]; of the others the number.
const TOLD: u32 = 5;
const WINDOW: Duration = Duration::from_secs(10);

/// Keeps one kind of event from filling the log, in one process.
#[derive(Default)]
pub struct Limiter(HashMap<Kind, Window>);

struct Window {
    until: Uptime,
    told: u32,
    held: u64,
    /// Of those held back.
    last: (Level, String),
}

impl Window {
    fn summary(&mut self) -> Option<(Level, String)> {
        let held = std::mem::take(&mut self.held);
        let (level, last) = &self.last;
        let others = match held {
            0 => return None,
            1 => last.clone(),
            more => format!("{last} (and {} more like this in {} s)", more - 1, WINDOW.as_secs()),
        };
        Some((*level, others))
    }
}

impl Limiter {
    /// What is to be told now that this has happened.
    pub fn lines(
        &mut self,
        kind: Kind,
        level: Level,
        message: String,
        now: Uptime,
    ) -> Vec<(Level, String)> {
        // Who wants to see everything does.
        if level > Level::Warn {
            return vec![(level, message)];
        }
        let until = now.plus(WINDOW);
        let new = || Window { until, told: 0, held: 0, last: (level, String::new()) };
        let window = self.0.entry(kind).or_insert_with(new);
        let mut lines = Vec::new();
        if now >= window.until {
            lines.extend(window.summary());
            *window = new();
        }
        if window.told < TOLD {
            window.told += 1;
            lines.push((level, message));
        } else {
            window.held += 1;
            window.last = (level, message);
        }
        lines
    }

    /// What was held back and nothing has followed.
    pub fn overdue(&mut self, now: Uptime) -> Vec<(Level, String)> {
        let over = self.0.values_mut().filter(|window| now >= window.until);
        over.filter_map(Window::summary).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Uptime {
        Uptime::from_millis(ms)
    }

    const WALL: WallTime = WallTime::from_unix_millis(1_700_000_000_000);

    #[test]
    fn a_setting_is_a_sink_or_refused() {
        assert_eq!(Sink::parse(""), Some(Sink::Php));
        assert_eq!(Sink::parse("stderr"), Some(Sink::Stderr));
        assert_eq!(Sink::parse("syslog"), Some(Sink::Syslog));
        assert_eq!(Sink::parse("/x/y"), Some(Sink::File("/x/y".into())));
        for none in ["x", "./x", "STDERR", "/x\n"] {
            assert_eq!(Sink::parse(none), None, "{none:?}");
        }
    }

    #[test]
    fn whatever_a_message_holds_it_stays_one_line_of_bounded_length() {
        let told = line(Level::Warn, "one\ntwo\r\u{1b}[31m\u{85}\u{202e}\u{2028}ünï");
        let wanted = "]: warning: one\\ntwo\\r\\u{1b}[31m\\u{85}\\u{202e}\\u{2028}ünï";
        assert!(told.ends_with(wanted), "{told}");
        let long = line(Level::Error, &"ü".repeat(5_000));
        assert!(long.len() <= LONGEST && long.ends_with('…'), "{}", long.len());
    }

    #[test]
    fn a_rotated_file_is_followed_and_appended_to() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("log"), dir.path().join("log.1"));
        let sink = Sink::File(path.clone());
        sink.write(Level::Warn, "first", WALL).unwrap();
        sink.write(Level::Warn, "second", WALL).unwrap();
        std::fs::rename(&path, &old).unwrap();
        sink.write(Level::Warn, "third", WALL).unwrap();
        let lines = |path| std::fs::read_to_string(path).unwrap().lines().count();
        assert_eq!((lines(&old), lines(&path)), (2, 1));
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("2023-11-14T22:13:20Z sharedstate["), "{text}");
    }

    #[test]
    fn a_pipe_that_nobody_reads_is_an_error_and_no_wait() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(Sink::File(pipe).write(Level::Warn, "lost", WALL).is_err());
    }

    #[test]
    fn the_systems_logger_gets_facility_and_severity() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let logger = UnixDatagram::bind(&path).unwrap();
        to_syslog(&path, Level::Warn, "sharedstate[1]: warning: x").unwrap();
        let mut bytes = [0; 64];
        let length = logger.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..length], b"<28>sharedstate[1]: warning: x");
        let missing = dir.path().join("missing");
        assert!(to_syslog(&missing, Level::Warn, "x").is_err());
    }

    #[test]
    fn of_a_flood_five_lines_are_told_and_the_number_of_the_others() {
        let mut limiter = Limiter::default();
        let mut tell = |n: i64, now| {
            limiter.lines(("a.rs", 1), Level::Warn, format!("event {n}"), at(now)).len()
        };
        let told: usize = (0..1_000).map(|n| tell(n, 5_000 + n)).sum();
        assert_eq!(told, 5);
        let lines = limiter.lines(("a.rs", 1), Level::Warn, "later".into(), at(16_000));
        let lines: Vec<_> = lines.into_iter().map(|(_, line)| line).collect();
        assert_eq!(lines, ["event 999 (and 994 more like this in 10 s)", "later"]);
    }

    #[test]
    fn what_was_held_back_is_told_also_when_nothing_follows() {
        let mut limiter = Limiter::default();
        for n in 0..6 {
            limiter.lines(("a.rs", 1), Level::Error, format!("event {n}"), at(0));
        }
        assert!(limiter.overdue(at(9_999)).is_empty());
        assert_eq!(limiter.overdue(at(10_000)), [(Level::Error, "event 5".to_owned())]);
        assert!(limiter.overdue(at(10_001)).is_empty(), "once");
    }

    #[test]
    fn one_kind_of_event_holds_no_other_back_and_details_are_not_limited() {
        let mut limiter = Limiter::default();
        let mut count = |kind, level| -> usize {
            (0..20).map(|_| limiter.lines(kind, level, "x".into(), at(0)).len()).sum()
        };
        assert_eq!(count(("a.rs", 1), Level::Warn), 5);
        assert_eq!(count(("a.rs", 2), Level::Warn), 5);
        assert_eq!(count(("a.rs", 3), Level::Info), 20);
    }
}
