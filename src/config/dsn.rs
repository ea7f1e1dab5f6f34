//! As much of a Redis address as it takes to show it without its secrets. The Redis store takes it
//! apart for real; nothing here decides where to connect.

pub(super) const MASK: &str = "***";

/// `scheme://userinfo@rest`; the scheme and the user info may be empty.
struct Parts<'a> {
    scheme: &'a str,
    userinfo: &'a str,
    rest: &'a str,
}

/// `None` when an `@` stands where user info cannot end: then a part of the password may be
/// anywhere, and nothing can be shown.
fn parts(dsn: &str) -> Option<Parts<'_>> {
    let (scheme, address) = dsn.split_at(dsn.find("://").map_or(0, |at| at + 3));
    let authority_ends = address.find(['/', '?', '#']).unwrap_or(address.len());
    let (userinfo, rest) = match address.rfind('@') {
        None => ("", address),
        Some(at) if at < authority_ends => (&address[..at], &address[at + 1..]),
        Some(_) => return None,
    };
    Some(Parts { scheme, userinfo, rest })
}

/// Whether the address can be understood without guessing.
pub(super) fn is_plain(dsn: &str) -> bool {
    parts(dsn).is_some() && !dsn.contains(|c: char| c.is_control() || c.is_whitespace())
}

pub(super) fn asks_for_tls(dsn: &str) -> bool {
    dsn.starts_with("rediss")
}

/// The address for people: user, password and secret parameters are replaced.
pub(super) fn masked(dsn: &str) -> String {
    let Some(Parts { scheme, userinfo, rest }) = parts(dsn) else { return MASK.into() };
    // Of what is no address, and has no user info, nobody knows which part is the password.
    if userinfo.is_empty() && (scheme.is_empty() || !is_plain(dsn)) {
        return MASK.into();
    }
    let mask = if userinfo.is_empty() { "" } else { "***@" };
    format!("{scheme}{mask}{}", without_secret_parameters(rest))
}

/// The address that tells two applications apart: the user stays, the password does not matter.
pub(super) fn without_password(dsn: &str) -> String {
    let Some(Parts { scheme, userinfo, rest }) = parts(dsn) else { return MASK.into() };
    let user = userinfo.split(':').next().unwrap_or_default();
    let at = if user.is_empty() { "" } else { "@" };
    format!("{scheme}{user}{at}{}", without_secret_parameters(rest))
}

fn without_secret_parameters(rest: &str) -> String {
    let Some((path, query)) = rest.split_once('?') else { return rest.into() };
    let parameters: Vec<_> = query.split('&').map(without_secret).collect();
    format!("{path}?{}", parameters.join("&"))
}

fn without_secret(parameter: &str) -> String {
    const SECRET: [&str; 4] = ["pass", "auth", "secret", "token"];
    let name = parameter.split('=').next().unwrap_or_default();
    if SECRET.iter().any(|word| name.to_ascii_lowercase().contains(word)) {
        return format!("{name}={MASK}");
    }
    parameter.into()
}
