//! The rules of the protocol, each of which a world can do without: then it must break a promise. In Lua the text is changed,
//! on a host a switch is turned, and between a host and Redis an answer is changed on its way.

use std::cell::Cell;

use super::lua;
use super::plan::{Temptation, Wrong};
use crate::store::memory::without::{self, HostRule};

pub struct Rule {
    pub name: &'static str,
    off: Off,
    /// In which worlds it is missed.
    pub tempts: Temptation,
}

/// Of what happens, by its numbers in [`super::plan`].
mod much {
    use super::{Temptation, Wrong};

    const fn of(faults: &'static [u64]) -> Temptation {
        Temptation { faults, wrong: Wrong::Nobody }
    }

    pub const OF_ALL: Temptation = of(&[0, 2, 7, 9, 13, 18, 20, 22, 25, 27]);
    pub const DROPPED: Temptation = of(&[23, 23, 26, 20]);
    pub const LATE: Temptation = of(&[2, 3, 4, 22, 23, 24]);
    pub const LOST: Temptation = of(&[0, 0, 14, 14, 23, 23]);
    pub const OVERTAKEN: Temptation = of(&[2, 2, 27, 23, 23, 23]);
    pub const POISONED: Temptation = of(&[29]);
    pub const TAKEN_OVER: Temptation = Temptation { faults: &[9, 9, 9, 13], wrong: Wrong::Servers };
    pub const FAILED: Temptation = of(&[25, 25, 24]);
    pub const SLOW: Temptation = of(&[0, 1, 4, 7, 8]);
}
use much::*;

enum Off {
    /// What stands in scripts, and what in its place.
    Lua(&'static [(&'static str, &'static str)]),
    Host(HostRule),
    Answer(Answer),
}

/// What is made of an answer before a host hears it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The anchor always stands.
    AnchorStands,
    /// One silence is as good as a refusal.
    SilenceIsRefusal,
    /// An answer says nothing of a floor.
    NoFloor,
}

const fn lua(
    name: &'static str,
    tempts: Temptation,
    changes: &'static [(&'static str, &'static str)],
) -> Rule {
    Rule { name, tempts, off: Off::Lua(changes) }
}

const fn host(name: &'static str, tempts: Temptation, rule: HostRule) -> Rule {
    Rule { name, tempts, off: Off::Host(rule) }
}

const fn answer(name: &'static str, tempts: Temptation, answer: Answer) -> Rule {
    Rule { name, tempts, off: Off::Answer(answer) }
}

pub const RULES: [Rule; 14] = [
    lua(
        "a lease is given only while none lives",
        OF_ALL,
        &[
            ("if held and ARGV[7] == '' then", "if false then"),
            (
                "local held = live_lease()\nif held then\n    -- The reply",
                "local held\nif held then\n    -- The reply",
            ),
        ],
    ),
    lua(
        "an older mint never replaces a newer one",
        LATE,
        &[("if row.ver < version then\n        return nil", "if true then\n        return nil")],
    ),
    lua(
        "what is below the floor is fenced",
        DROPPED,
        &[("if version < row.floor or version > latest then", "if version > latest then")],
    ),
    lua(
        "a claim carries the highest version that its host has seen",
        TAKEN_OVER,
        &[("believed(highest_known)", "0")],
    ),
    lua(
        "an entry is as old as the older of two pairs of clocks says",
        TAKEN_OVER,
        &[("'w', ARGV[11])", "'w', '')"), ("m, r, u, x, ARGV[11])", "m, r, u, x, '')")],
    ),
    lua(
        "what nobody can have issued is not believed",
        POISONED,
        &[(
            "return version >= 0 and version <= latest and version % 1 == 0 and version or 0",
            "return version",
        )],
    ),
    lua(
        "an invalidation is above every lease that was given",
        DROPPED,
        &[("drop(row, next_version(row, ARGV[4]))", "drop(row, row.ver + 1)")],
    ),
    lua("who failed is not asked again at once", FAILED, &[("if pause > 0 and", "if false and")]),
    host("a gap puts everything in doubt", LOST, HostRule::Doubt),
    host("a heartbeat is as old as the question", LATE, HostRule::BeatAsSent),
    host("a host keeps nothing older than it has heard of", OVERTAKEN, HostRule::NewerOnly),
    answer("no gap is only what an anchor shows to be none", LOST, Answer::AnchorStands),
    answer("a host mints for itself only after a second silence", SLOW, Answer::SilenceIsRefusal),
    answer("what a reply says of a floor counts at once", DROPPED, Answer::NoFloor),
];

thread_local! {
    static OFF: Cell<Option<&'static Rule>> = const { Cell::new(None) };
}

/// From here on this thread's worlds do without the rule.
pub fn switch_off(rule: Option<&'static Rule>) {
    OFF.set(rule);
    lua::forget();
    without::set(match rule {
        Some(Rule { off: Off::Host(rule), .. }) => Some(*rule),
        _ => None,
    });
}

/// Whether answers are changed so.
pub fn changes(answer: Answer) -> bool {
    matches!(OFF.get(), Some(Rule { off: Off::Answer(it), .. }) if *it == answer)
}

/// The script as it is run.
pub fn script(text: &str) -> String {
    let Some(Rule { off: Off::Lua(changes), .. }) = OFF.get() else { return text.into() };
    changes.iter().fold(text.into(), |text: String, (from, to)| text.replace(from, to))
}

/// Whether every change finds what it is to change.
#[test]
fn what_a_rule_changes_is_there() {
    let all = concat!(
        include_str!("../redis/busy.lua"),
        include_str!("../redis/common.lua"),
        include_str!("../redis/claim.lua"),
        include_str!("../redis/commit.lua"),
        include_str!("../redis/invalidate.lua"),
    );
    for Rule { name, off, .. } in &RULES {
        if let Off::Lua(changes) = off {
            for (from, _) in *changes {
                assert!(all.contains(from), "{name}: {from}");
            }
        }
    }
}
