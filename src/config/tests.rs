use super::*;

fn parse(ini: &[(&str, &str)]) -> Result<Config, String> {
    parse_with_env(ini, &[])
}

fn parse_with_env(ini: &[(&str, &str)], env: &[(&str, &str)]) -> Result<Config, String> {
    let get = |list: &[(&str, &str)], asked: &str| {
        list.iter().find(|(name, _)| *name == asked).map(|(_, value)| (*value).to_owned())
    };
    Config::parse(&|name| get(ini, name.trim_start_matches("sharedstate.")), &|name| get(env, name))
}

/// The sentence a setting is refused with.
fn refused(name: &str, value: &str) -> String {
    let sentence = parse(&[(name, value)]).expect_err(&format!("{name}={value} is refused"));
    assert!(sentence.contains(&format!("sharedstate.{name}")), "{sentence}");
    sentence
}

#[test]
fn nothing_configured_means_the_documented_defaults() {
    let c = parse(&[]).unwrap();
    assert_eq!(c.prefix, "sharedstate");
    assert_eq!(c.redis_dsn, None);
    assert_eq!(c.host_dir, PathBuf::from("/dev/shm"));
    assert_eq!((c.host_memory, c.host_slots, c.host_value_size), (32 << 20, 16_384, 16 << 10));
    assert_eq!(c.token_policy.margin, Duration::from_secs(60));
    assert_eq!(c.lease, Duration::from_millis(4_000));
    assert_eq!(c.wait_timeout, Duration::from_millis(6_000));
    assert_eq!(c.fx_policy.max_stale, Duration::from_secs(3 * 86_400));
    assert_eq!(c.log_level, LevelFilter::Warn);
}

#[test]
fn no_setting_is_silently_ignored() {
    // One that nobody reads could not refuse nonsense.
    let free_text = ["redis.username", "redis.password", "prefix", "redis.dsn"];
    for s in SETTINGS {
        let name = s.name.trim_start_matches("sharedstate.");
        assert_eq!(parse(&[(name, "nonsense")]).is_ok(), free_text.contains(&name), "{name}");
    }
}

#[test]
fn every_refusal_says_what_was_given_and_what_is_expected() {
    assert_eq!(
        refused("token.lease_ms", "4s"),
        "sharedstate.token.lease_ms is \"4s\", but must be a whole number of milliseconds from 100 \
         to 600000"
    );
    assert_eq!(
        refused("host.memory", "512K"),
        "sharedstate.host.memory is \"512K\", but must be a size such as 16K, 32M or 1G, from 1M \
         to 1024G"
    );
    assert!(refused("store_down", "maybe").contains("one of host, fail"));
    assert!(refused("log_level", "loud").contains("off, error, warning"));
}

#[test]
fn numbers_are_whole_within_range_and_without_sign_or_space() {
    for value in ["", "-1", "+5", " 5", "1.5", "0", "1025", "99999999999999999999", "0x10"] {
        refused("redis.pool_max", value);
    }
    assert_eq!(parse(&[("redis.pool_max", "1024")]).unwrap().redis_pool_max, 1024);
}

#[test]
fn sizes_count_in_1024_and_know_their_letters() {
    let memory = |value| parse(&[("host.memory", value)]).map(|c| c.host_memory);
    assert_eq!(memory("1g").unwrap(), 1 << 30);
    assert_eq!(memory("2048K").unwrap(), 2 << 20);
    assert_eq!(memory("1048576").unwrap(), 1 << 20);
    for value in ["", "M", "32MB", "1.5M", "-1M", "1048575", "99999999999999G", "32é"] {
        refused("host.memory", value);
    }
    refused("host.value_size", "1023");
    refused("host.value_size", "2M");
}

#[test]
fn slots_are_rounded_up_to_a_multiple_of_64() {
    let slots = |value| parse(&[("host.slots", value)]).unwrap().host_slots;
    assert_eq!((slots("1"), slots("64"), slots("1000")), (64, 64, 1024));
}

#[test]
fn a_prefix_that_could_break_a_key_is_refused() {
    let long = "x".repeat(65);
    for value in ["", "a b", "a{b", "a}b", "a\nb", "a\u{a0}b", long.as_str()] {
        refused("prefix", value);
    }
    assert_eq!(parse(&[("prefix", "shop:eu")]).unwrap().prefix, "shop:eu");
}

#[test]
fn a_ratio_lies_between_nothing_and_everything() {
    for value in ["0", "1", "1.2", "-0.5", "NaN", "inf", "", "80%"] {
        refused("token.refresh_ratio", value);
    }
}

#[test]
fn a_caller_who_could_not_outwait_a_dead_minter_is_refused() {
    let both = |lease, wait| {
        parse(&[("token.lease_ms", lease), ("token.wait_timeout_ms", wait)]).map(|_| ())
    };
    assert_eq!(both("5000", "6000"), Ok(()));
    let sentence = both("5001", "6000").unwrap_err();
    assert!(
        sentence.contains("wait_timeout_ms is 6000") && sentence.contains("6001"),
        "{sentence}"
    );
}

#[test]
fn staleness_that_one_missed_refresh_would_exhaust_is_refused() {
    let both = |interval, stale| {
        parse(&[("fx.refresh_interval_s", interval), ("fx.max_stale_s", stale)]).map(|_| ())
    };
    assert_eq!(both("3600", "7201"), Ok(()));
    assert!(both("3600", "7200").unwrap_err().contains("7200"));
}

#[test]
fn an_age_that_ends_every_sheet_before_its_renewal_is_refused() {
    let sentence = refused("fx.max_age_s", "7200");
    assert!(sentence.contains("7200") && sentence.contains("refresh_interval_s"), "{sentence}");
}

#[test]
fn a_quota_that_ends_before_the_month_is_refused_and_the_sentence_names_what_fits() {
    let both = |sources, quota, interval| {
        let settings = [
            ("fx.sources", sources),
            ("fx.monthly_quota", quota),
            ("fx.refresh_interval_s", interval),
            ("fx.openexchangerates.app_id_file", "/etc/app-id"),
        ];
        parse(&settings).map(|_| ())
    };
    assert_eq!(both("openexchangerates", "745", "3600"), Ok(()));
    assert!(both("openexchangerates", "744", "3600").unwrap_err().contains("takes 745 calls"));
    let sentence = both("openexchangerates", "100", "3600").unwrap_err();
    assert!(sentence.contains("an interval of 27055 s fits"), "{sentence}");
    assert_eq!(both("openexchangerates", "100", "27055"), Ok(()));
    assert_eq!(both("ecb", "100", "3600"), Ok(()), "the ECB's is free");
}

#[test]
fn sources_are_a_list_in_order_and_an_unknown_one_is_refused_by_name() {
    let config = parse(&[("fx.sources", "ecb, json:https://rates.example/latest")]).unwrap();
    let names: Vec<_> = config.fx_sources.iter().map(|source| source.name()).collect();
    assert_eq!(names, ["ecb", "json:rates.example"]);
    assert!(refused("fx.sources", "yahoo").contains("yahoo"));
    assert!(refused("fx.sources", "openexchangerates").contains("app_id_file"));
}

#[test]
fn the_environment_counts_only_where_the_ini_is_silent() {
    let env =
        [("SHAREDSTATE_REDIS_DSN", "redis://env"), ("SHAREDSTATE_REDIS_PASSWORD", "from env")];
    let c = parse_with_env(&[], &env).unwrap();
    assert_eq!(c.redis_dsn.as_deref(), Some("redis://env"));
    assert_eq!(c.redis_password.as_deref(), Some("from env"));
    let ini = [("redis.dsn", "redis://ini"), ("redis.password_file", "/run/secret")];
    let c = parse_with_env(&ini, &env).unwrap();
    assert_eq!(c.redis_dsn.as_deref(), Some("redis://ini"));
    assert_eq!(c.redis_password, None, "the file is the INI's password");
}

#[test]
fn two_passwords_are_one_too_many() {
    let ini = [("redis.password", "a"), ("redis.password_file", "/run/secret")];
    assert!(parse(&ini).unwrap_err().contains("keep one"));
}

#[test]
fn a_client_certificate_needs_its_key_and_a_key_its_certificate() {
    let dsn = ("redis.dsn", "rediss://h");
    let (cert, key) = (("redis.tls_cert", "/c.pem"), ("redis.tls_key", "/k.pem"));
    assert!(parse(&[dsn, cert]).unwrap_err().contains("tls_key is not: set both"));
    assert!(parse(&[dsn, key]).unwrap_err().contains("tls_cert is not: set both"));
    let identity = parse(&[dsn, cert, key]).unwrap().redis_tls_identity;
    assert_eq!(identity, Some(("/c.pem".into(), "/k.pem".into())));
}

#[test]
fn a_password_is_the_same_wherever_it_stands() {
    for around in ["pw", "pw\n", "pw\r\n", "\u{feff}pw", "\u{feff}pw\r\n"] {
        let ini = parse(&[("redis.password", around)]).unwrap();
        let env = parse_with_env(&[], &[("SHAREDSTATE_REDIS_PASSWORD", around)]).unwrap();
        assert_eq!(ini.redis_password.as_deref(), Some("pw"), "{around:?}");
        assert_eq!(env.redis_password.as_deref(), Some("pw"), "{around:?}");
    }
    let dsn = parse_with_env(&[], &[("SHAREDSTATE_REDIS_DSN", "redis://:pw@h:1/3\n")]).unwrap();
    assert_eq!(dsn.redis_dsn.as_deref(), Some("redis://:pw@h:1/3"));
    let two = parse(&[("redis.password", "hunter2\nhunter3")]).unwrap_err();
    assert!(two.contains("one line") && !two.contains("hunter"), "{two}");
}

#[test]
fn a_server_name_is_a_name_and_needs_tls() {
    let name = |name| [("redis.dsn", "rediss://10.0.0.7"), ("redis.tls_server_name", name)];
    for good in ["cache.example.com", "10.1.2.3", "::1"] {
        assert_eq!(parse(&name(good)).unwrap().redis_tls_server_name.as_deref(), Some(good));
    }
    for bad in ["cache.example.com:6379", "rediss://h", "a b", "-"] {
        assert!(parse(&name(bad)).unwrap_err().contains("without a port"), "{bad}");
    }
    let clear = [("redis.dsn", "redis://h"), ("redis.tls_server_name", "h")];
    assert!(parse(&clear).unwrap_err().contains("does not ask for TLS"));
}

#[test]
fn certificates_for_a_connection_in_the_clear_are_refused() {
    let ca = [("redis.tls_ca", "/ca.pem"), ("log", "")];
    let identity = [("redis.tls_cert", "/c.pem"), ("redis.tls_key", "/k.pem")];
    for tls in [ca, identity] {
        for dsn in ["", "redis://h", "redis+sentinel://h/m", "redis+unix:///s"] {
            let sentence = parse(&[("redis.dsn", dsn), tls[0], tls[1]]).unwrap_err();
            assert!(sentence.contains("does not ask for TLS") && sentence.contains("rediss://"));
        }
        for dsn in ["rediss://h", "rediss+sentinel://h/m", "rediss+cluster://h"] {
            assert!(parse(&[("redis.dsn", dsn), tls[0], tls[1]]).is_ok(), "{dsn}");
        }
    }
}

#[test]
fn no_secret_is_shown_anywhere() {
    let ini = [("redis.dsn", "redis://bob:hunter2@h:1/3"), ("redis.password", "hunter3")];
    let c = parse(&ini).unwrap();
    assert_eq!(c.shown("sharedstate.redis.dsn"), "redis://***@h:1/3");
    assert_eq!(c.shown("sharedstate.redis.password"), "***");
    assert_eq!(c.shown("sharedstate.prefix"), "sharedstate");
    assert_eq!(shown("sharedstate.redis.password", ""), "", "unset looks unset");
    assert_eq!(shown("sharedstate.unheard_of", "x"), "***");
    let list = "ecb,json:https://rates.example/v6/0a1b2c3d4e5f6a7b8c9d/latest?key=k";
    assert_eq!(
        shown("sharedstate.fx.sources", list),
        "ecb,json:https://rates.example/v6/[removed]/latest"
    );
    let debug = format!("{c:?} {:?}", c.identity_parts());
    assert!(!debug.contains("hunter"), "{debug}");
}

#[test]
fn what_is_no_address_is_not_shown() {
    for odd in ["hunter2", "redis://:hunter2 127.0.0.1:1", "redis://h unter2"] {
        assert_eq!(shown("sharedstate.redis.dsn", odd), "***");
    }
    assert_eq!(shown("sharedstate.redis.dsn", "redis://h:1/3"), "redis://h:1/3");
}

#[test]
fn an_address_that_hides_a_password_badly_is_refused_and_masked() {
    for dsn in ["redis://:hun/ter2@h", "redis://:hun?ter2@h", "redis://h/0?password=hun@ter2"] {
        let sentence = refused("redis.dsn", dsn);
        assert!(!sentence.contains("hun") && !sentence.contains("ter2"), "{sentence}");
        assert_eq!(shown("sharedstate.redis.dsn", dsn), "***");
    }
    assert_eq!(
        shown("sharedstate.redis.dsn", "redis://h/0?db=1&sentinel_password=x"),
        "redis://h/0?db=1&sentinel_password=***"
    );
    assert_eq!(shown("sharedstate.redis.dsn", "bob:x@h:6379"), "***@h:6379");
}

#[test]
fn identity_follows_prefix_place_and_user_but_not_the_password() {
    let identity = |ini: &[(&str, &str)]| parse(ini).unwrap().identity_parts();
    let base = identity(&[("redis.dsn", "redis://bob:a@h:1/3")]);
    assert_eq!(base, identity(&[("redis.dsn", "redis://bob:b@h:1/3"), ("redis.password", "x")]));
    for other in [
        [("redis.dsn", "redis://eve:a@h:1/3"), ("log", "")],
        [("redis.dsn", "redis://bob:a@i:1/3"), ("log", "")],
        [("redis.dsn", "redis://bob:a@h:1/4"), ("log", "")],
        [("redis.dsn", "redis://bob:a@h:1/3"), ("redis.username", "eve")],
        [("redis.dsn", "redis://bob:a@h:1/3"), ("prefix", "shop")],
    ] {
        assert_ne!(base, identity(&other));
    }
}

#[test]
fn help_is_one_line_and_names_the_unit() {
    for s in SETTINGS {
        assert!(!s.help.contains('\n'));
        assert!(!s.name.ends_with("_ms") || s.help.starts_with("milliseconds "), "{}", s.name);
        assert!(!s.name.ends_with("_s") || s.help.starts_with("seconds "), "{}", s.name);
    }
}
