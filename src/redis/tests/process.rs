//! Forks and signals, which PHP applications use and connections must survive.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::process;

static HEARD: AtomicU32 = AtomicU32::new(0);

extern "C" fn hear(_: libc::c_int) {
    HEARD.fetch_add(1, Ordering::SeqCst);
}

#[test]
fn a_signal_waits_for_the_operation_and_does_not_interrupt_it() {
    let server = Server::start();
    let store = server.store();
    store.ping().unwrap();
    // SAFETY: the handler only counts; SIGURG is nobody else's, and is ignored by default.
    unsafe { libc::signal(libc::SIGURG, hear as *const () as libc::sighandler_t) };
    // SAFETY: names the calling thread.
    let me = unsafe { libc::pthread_self() };
    server.admin().tell("CLIENT PAUSE 1500 ALL");
    let during = thread::scope(|scope| {
        let caller = scope.spawn(move || {
            thread::sleep(Duration::from_millis(50));
            // SAFETY: the thread waits for this scope, so it exists.
            unsafe { libc::pthread_kill(me, libc::SIGURG) };
            thread::sleep(Duration::from_millis(50));
            HEARD.load(Ordering::SeqCst)
        });
        store.ping().unwrap();
        caller.join().unwrap()
    });
    assert_eq!(during, 0, "heard while the operation ran");
    assert_eq!(HEARD.load(Ordering::SeqCst), 1, "and heard afterwards");
}

#[test]
fn a_forked_child_closes_the_sockets_and_the_parent_goes_on() {
    let (plain, secure) = (Server::start(), super::tls::secure());
    // With TLS a child could end the session in its parent's name.
    for store in [plain.store(), RedisStore::new(secure.config())] {
        mint(&store, &key("crm"), 1, "one");
        // SAFETY: the child calls nothing that takes a lock another thread may have held, and
        // leaves by `_exit`.
        let child = unsafe { libc::fork() };
        if child == 0 {
            process::forked();
            let refused = matches!(store.ping(), Err(StoreError::Unreachable(_)));
            drop(store);
            // SAFETY: ends the child without the test harness noticing.
            unsafe { libc::_exit(if refused { 0 } else { 1 }) };
        }
        let mut status = 0;
        // SAFETY: `child` is our own child, and nobody else waits for it.
        unsafe { libc::waitpid(child, &mut status, 0) };
        assert_eq!(status, 0, "the child used its parent's pool");
        let before = store.commands_sent();
        assert_eq!(value(&store, &key("crm")), b"one");
        assert_eq!(store.commands_sent() - before, 1, "on the same connection");
    }
}

#[test]
fn a_forked_child_keeps_no_connection_of_its_parent_open() {
    let server = Server::start();
    let store = server.store();
    mint(&store, &key("crm"), 1, "one");
    // SAFETY: as above; the child waits to be killed.
    let child = unsafe { libc::fork() };
    if child == 0 {
        process::forked();
        loop {
            // SAFETY: only sleeps.
            unsafe { libc::pause() };
        }
    }
    drop(store);
    let mut admin = server.admin();
    let mut open = || admin.ask::<String>("CLIENT LIST").contains("cmd=evalsha");
    let closed = (0..500).any(|_| {
        thread::sleep(Duration::from_millis(10));
        !open()
    });
    // SAFETY: `child` is our own child, not waited for yet.
    unsafe {
        libc::kill(child, libc::SIGKILL);
        libc::waitpid(child, std::ptr::null_mut(), 0);
    }
    assert!(closed, "the child holds the connection that its parent closed");
}
