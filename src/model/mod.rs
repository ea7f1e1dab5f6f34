//! The protocol as explicit-state models: every interleaving of a few processes, one key, and every
//! fault at every point. Each rule can be switched off, and then there must be a counterexample: a
//! rule that no model needs is a rule too many, and a model that misses it is too weak.
//!
//! [`log`]: who may trust what a host has. [`lease`]: who may publish, and what survives a loss.

use std::collections::{HashMap, VecDeque};
use std::fmt::Debug;
use std::hash::Hash;

mod lease;
mod log;

trait Model {
    type State: Clone + Eq + Hash + Debug;
    type Rule: Copy + Debug + 'static;

    /// All rules, with what each is called in docs/PROTOCOL.md.
    const RULES: &'static [(Self::Rule, &'static str)];

    fn start() -> Self::State;
    /// What may happen next, each step with its name; without the rule `off`.
    fn steps(state: &Self::State, off: Option<Self::Rule>) -> Vec<(String, Self::State)>;
    /// The promise that is broken here.
    fn broken(state: &Self::State) -> Option<&'static str>;
}

/// How many states there are, or the shortest way into one that must not be.
fn explore<M: Model>(off: Option<M::Rule>) -> Result<usize, (String, Vec<String>)> {
    let start = M::start();
    let mut came_from: HashMap<M::State, Option<(M::State, String)>> = HashMap::new();
    came_from.insert(start.clone(), None);
    let mut queue = VecDeque::from([start]);
    while let Some(state) = queue.pop_front() {
        if let Some(promise) = M::broken(&state) {
            let mut trace = Vec::new();
            let mut at = &state;
            while let Some(Some((before, step))) = came_from.get(at) {
                trace.push(step.clone());
                at = before;
            }
            trace.reverse();
            return Err((promise.into(), trace));
        }
        for (step, next) in M::steps(&state, off) {
            if !came_from.contains_key(&next) {
                came_from.insert(next.clone(), Some((state.clone(), step)));
                queue.push_back(next);
            }
        }
    }
    Ok(came_from.len())
}

fn check<M: Model>() {
    match explore::<M>(None) {
        Ok(states) => println!("as designed: sound in {states} states"),
        Err((promise, trace)) => panic!("as designed: {promise}\n  {}", trace.join("\n  ")),
    }
    for (rule, name) in M::RULES {
        match explore::<M>(Some(*rule)) {
            Ok(states) => panic!("without \"{name}\" nothing breaks in {states} states"),
            Err((promise, trace)) => {
                println!("without \"{name}\": {promise}\n  {}", trace.join("\n  "));
            }
        }
    }
}

#[test]
fn what_a_host_trusts_is_the_newest_and_each_rule_is_needed_for_it() {
    check::<log::Log>();
}

#[test]
fn what_is_published_is_newer_and_allowed_and_each_rule_is_needed_for_it() {
    check::<lease::Leases>();
}
