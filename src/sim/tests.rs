use super::plan::Plan;
use super::world;

#[test]
fn small_worlds() {
    let count: u64 = std::env::var("SIM_WORLDS").ok().and_then(|it| it.parse().ok()).unwrap_or(50);
    let (mut mints, mut served, mut commands) = (0, 0, 0);
    for seed in 1..=count {
        let came = world::run(seed, Plan::small(seed));
        if let Some(sentence) = came.broken {
            eprintln!("seed {seed}: {sentence}");
        }
        mints += came.mints;
        served += came.served;
        commands += came.commands;
    }
    eprintln!("{count} worlds: {mints} mints, {served} served, {commands} commands");
}
