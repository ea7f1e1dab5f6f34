//! The contract of [`Host`]: what a host notes of keys beside their records, and of its authority.

use super::*;
use crate::clock::server::{ServerTime, Watched};
use crate::store::log::Anchor;
use crate::store::{Asked, Boarding, Heard, Host, Leave, Right};

type HoldsOnHost = fn(&dyn Host, &dyn Pace);

const CLAIMS: &[(&str, HoldsOnHost)] = &[
    ("what_lies_below_a_floor_is_not_adopted", what_lies_below_a_floor_is_not_adopted),
    ("what_is_heard_of_is_not_vouched_for", what_is_heard_of_is_not_vouched_for),
    ("what_nobody_can_have_issued_is_not_noted", what_nobody_can_have_issued_is_not_noted),
    ("a_floor_counts_as_heard_of", a_floor_counts_as_heard_of),
    ("a_heartbeat_only_grows", a_heartbeat_only_grows),
    ("what_is_in_doubt_was_the_newest_at_the_last_beat", in_doubt),
    ("an_earlier_doubt_settles_no_later_one", an_earlier_doubt_settles_no_later_one),
    ("a_flight_given_up_on_notes_no_secret", a_flight_given_up_on_notes_no_secret),
    ("who_waits_is_woken_when_a_flight_ends", who_waits_is_woken_when_a_flight_ends),
    ("one_of_a_host_revalidates_at_a_time", one_of_a_host_revalidates_at_a_time),
    ("a_pause_is_known_until_somebody_has_minted", a_pause_is_known_until_somebody_has_minted),
    ("a_silence_ends_with_an_answer", a_silence_ends_with_an_answer),
    ("a_host_that_stood_still_is_brought_nearer", a_host_that_stood_still_is_brought_nearer),
    ("what_was_watched_of_the_authoritys_clock_is_known", watched),
];

/// Check every claim on a host of its own, made by `make`; panics with the list of broken ones.
pub fn check_host(name: &str, make: &dyn Fn() -> Box<dyn Host>, pace: &dyn Pace) {
    let broken = CLAIMS.iter().filter_map(|(claim, holds)| {
        let host = make();
        broken(name, claim, || holds(&*host, pace))
    });
    let broken: Vec<String> = broken.collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

const TICK: Duration = Duration::from_millis(20);

fn of(version: u64, host: &dyn Host) -> Entry {
    let now = host.now();
    let after = |s| now.plus(Duration::from_secs(s));
    let timing = Timing {
        minted_at: now,
        refresh_at: after(2_400),
        usable_until: after(3_000),
        expires_at: after(3_600),
    };
    let (value, detail) = (b"token".to_vec().into(), b"{}".to_vec().into());
    Entry { version: Version(version), timing, unsynced: false, value, detail }
}

fn board(host: &dyn Host, hold: Duration) -> (Right, Option<Secret>) {
    board_after(host, hold, || panic!("somebody has it"))
}

/// Who has it is warned before it is given up on, so it may take several tries with a `pause` between them.
fn board_after(host: &dyn Host, hold: Duration, pause: impl Fn()) -> (Right, Option<Secret>) {
    loop {
        let now = host.now();
        match host.board(&key(), now.plus(hold), now).unwrap() {
            Boarding::Mine { right, orphan } => return (right, orphan),
            Boarding::Taken { .. } => pause(),
        }
    }
}

/// The host has the entry, asked for now.
fn have(host: &dyn Host, version: u64) {
    let (right, _) = board(host, LONG);
    let asked = Asked { at: host.now(), reservation: host.reserve(&key()) };
    host.adopt(&key(), &of(version, host), asked).unwrap();
    host.leave(&key(), &right);
}

fn version(host: &dyn Host) -> Option<u64> {
    host.look(&key())?.entry.map(|entry| entry.version.0)
}

fn beat(host: &dyn Host) -> Moment {
    let now = host.now();
    host.beat(now, &Anchor::default());
    now
}

fn what_lies_below_a_floor_is_not_adopted(host: &dyn Host, _: &dyn Pace) {
    have(host, 5);
    host.raise_floor(&key(), Version(7));
    assert_eq!(version(host), None);
    have(host, 6);
    assert_eq!(version(host), None, "below the floor");
    have(host, 7);
    assert_eq!(version(host), Some(7));
}

fn what_is_heard_of_is_not_vouched_for(host: &dyn Host, pace: &dyn Pace) {
    have(host, 5);
    assert!(host.hear(&key(), Version(6), Version::NONE));
    pace.pass(TICK);
    let beat = beat(host);
    assert!(host.look(&key()).unwrap().confirmed_at < beat, "there is a newer one");
    have(host, 6);
    pace.pass(TICK);
    assert!(host.look(&key()).unwrap().confirmed_at >= beat);
}

fn what_nobody_can_have_issued_is_not_noted(host: &dyn Host, pace: &dyn Pace) {
    have(host, 5);
    host.hear(&key(), Version(9), Version(4));
    let beyond = Version(Version::latest(pace.wall()).0 + 600_000_000);
    host.raise_floor(&key(), beyond);
    host.hear(&key(), beyond, beyond);
    have(host, beyond.0);
    let known = host.look(&key()).unwrap();
    assert_eq!((known.newest, known.floor), (Version(9), Version(4)), "what was known is lost");
    assert!(known.highest < beyond);
    assert_eq!(known.entry.map(|entry| entry.version), Some(Version(5)));
}

fn a_floor_counts_as_heard_of(host: &dyn Host, _: &dyn Pace) {
    have(host, 5);
    host.raise_floor(&key(), Version(9));
    let known = host.look(&key()).unwrap();
    assert_eq!((known.newest, known.highest), (Version(9), Version(9)));
}

fn a_heartbeat_only_grows(host: &dyn Host, pace: &dyn Pace) {
    let early = host.now();
    pace.pass(TICK);
    let late = beat(host);
    host.beat(early, &Anchor::default());
    assert_eq!(host.health().heartbeat, late);
}

fn in_doubt(host: &dyn Host, pace: &dyn Pace) {
    have(host, 5);
    pace.pass(TICK);
    let before = beat(host);
    let confirmed = || host.look(&key()).unwrap().confirmed_at;
    assert_eq!(confirmed(), before);
    pace.pass(TICK);
    host.doubt();
    pace.pass(TICK);
    beat(host);
    assert_eq!(confirmed(), before, "no later beat vouches for it");
    // The leader met a second gap before it had compared everything.
    let doubt = host.doubt();
    beat(host);
    assert_eq!(confirmed(), before);
    host.settle(doubt);
    assert_eq!(host.in_doubt(), None);
    pace.pass(TICK);
    host.confirm(&key(), Version(5), host.now());
    let after = beat(host);
    assert!(confirmed() >= after, "confirmed since");
}

fn an_earlier_doubt_settles_no_later_one(host: &dyn Host, pace: &dyn Pace) {
    let earlier = host.doubt();
    pace.pass(TICK);
    let later = host.doubt();
    host.settle(earlier);
    assert_eq!(host.in_doubt(), Some(later));
    host.settle(later);
    assert_eq!(host.in_doubt(), None);
}

fn a_flight_given_up_on_notes_no_secret(host: &dyn Host, pace: &dyn Pace) {
    let (first, _) = board(host, SHORT);
    let pause = || pace.pass(PAST_SHORT);
    let (second, _) = board_after(host, SHORT, pause);
    host.note_secret(&key(), &second, secret(2));
    host.note_secret(&key(), &first, secret(1));
    assert_eq!(board_after(host, LONG, pause).1, Some(secret(2)));
}

fn who_waits_is_woken_when_a_flight_ends(host: &dyn Host, _: &dyn Pace) {
    let (right, _) = board(host, LONG);
    let now = host.now();
    let boarding = host.board(&key(), now.plus(LONG), now).unwrap();
    let Boarding::Taken { bell, .. } = boarding else { panic!("{boarding:?}") };
    thread::scope(|scope| {
        let (says, said) = std::sync::mpsc::channel();
        scope.spawn(move || {
            host.wait(&key(), bell, LONG);
            says.send(())
        });
        thread::sleep(TICK);
        host.leave(&key(), &right);
        assert_eq!(said.recv_timeout(LONG / 2), Ok(()));
    });
}

fn one_of_a_host_revalidates_at_a_time(host: &dyn Host, pace: &dyn Pace) {
    have(host, 5);
    let may = || host.may_revalidate(&key(), host.now(), host.now().plus(SHORT));
    assert!(may());
    assert!(!may());
    pace.pass(PAST_SHORT);
    assert!(may());
}

fn a_pause_is_known_until_somebody_has_minted(host: &dyn Host, _: &dyn Pace) {
    let heard = || {
        let known = host.look(&key()).unwrap();
        (known.backoff.map(|it| (it.until, it.reason)), known.paused_until)
    };
    let (right, _) = board(host, LONG);
    let (until, ask_at) = (host.now().plus(LONG * 2), host.now().plus(LONG));
    host.hear_backoff(&key(), until, "HTTP 429", ask_at);
    host.leave(&key(), &right);
    assert_eq!(heard(), (Some((until, "HTTP 429".into())), ask_at));
    assert_eq!(host.survey(1)[0].backoff.as_ref().map(|it| it.until), Some(until));
    let ends: [fn(&dyn Host); 2] =
        [|host| host.wake(&key()), |host| host.set_busy(&key(), host.now().plus(LONG))];
    for end in ends {
        host.hear_backoff(&key(), until, "HTTP 429", ask_at);
        end(host);
        assert_eq!(heard(), (Some((until, "HTTP 429".into())), Moment::default()));
    }
    have(host, Version::FILE.0);
    assert_eq!(heard().0.map(|it| it.0), Some(until), "a file says nothing of it");
    have(host, 5);
    assert_eq!(heard().0, None);
}

fn a_silence_ends_with_an_answer(host: &dyn Host, pace: &dyn Pace) {
    let hear = |heard| host.authority_heard(heard, host.now(), host.now());
    // One silence a second after an answer is the first of its own, however long ago another was.
    for _ in 0..3 {
        hear(Heard::Silence);
        pace.pass(TICK);
        hear(Heard::Answer);
        pace.pass(Duration::from_millis(600));
    }
    hear(Heard::Silence);
    assert_eq!(host.may_ask(host.now()), Leave::Withheld { certain: false });
}

/// The server's clock, as this host's monotonic clock goes; of a server that answers at once.
fn told(host: &dyn Host, later: i64) -> ServerTime {
    let clock = host.now().as_millis() + 500_000 + later;
    let at = Moment::from_millis(clock - 9_000);
    ServerTime { clock, sent: at, heard: at }
}

fn a_host_that_stood_still_is_brought_nearer(host: &dyn Host, _: &dyn Pace) {
    let hear = |told: ServerTime| host.hear_clock(&told, 0, true);
    hear(told(host, 0));
    let before = host.now();
    hear(told(host, 3_600_000));
    assert!(before.millis_until(host.now()) >= 3_600_000 - 100);
    let before = host.now();
    hear(told(host, 0));
    assert!(before.millis_until(host.now()) < 60_000, "nearer once");
}

fn watched(host: &dyn Host, _: &dyn Pace) {
    assert_eq!(host.watched(), None);
    let told = told(host, 0);
    host.hear_clock(&told, 0, true);
    let (from, at) = (told.heard, told.heard);
    let known = |since: i64, lead: i64| Some(Watched { since, lead, from, at });
    assert_eq!(host.watched(), known(told.clock, 9_000));
    host.hear_clock(&ServerTime { clock: told.clock - 60_000, ..told }, 0, true);
    assert_eq!(host.watched(), known(told.clock, 9_000 - 60_000), "it was set back");
}
