//! Keeps secrets (passwords, keys, tokens and signatures) out of everything that is shown or written.
//!
//! [`redacted`] does this. It recognises secrets by their place in a URL (`user:password@`, `?sig=…`,
//! `&X-Amz-Signature=…`), and by their value, if that was given to [`keep`]. Errors and names of places redact
//! themselves; output to the terminal, to `run.json` and to a report is redacted when it is written.

use std::borrow::Cow;
use std::sync::{LazyLock, Once, PoisonError, RwLock};

use url::Url;
use url::form_urlencoded::byte_serialize;

/// The replacement of a secret.
pub const REDACTED: &str = "***";

/// Values shorter than this, in bytes, are not searched in other texts, since they would be found in ordinary words. In
/// a URL they are redacted nevertheless.
pub const SHORTEST: usize = 5;

/// The known secret values, in all spellings, longest first, since one may contain another.
static KNOWN: LazyLock<RwLock<Vec<String>>> = LazyLock::new(RwLock::default);

/// Registers a secret value, so that it is redacted wherever it appears.
pub fn keep(value: &str) {
    let escaped = format!("{value:?}");
    let json = serde_json::Value::from(value).to_string();
    let inside = |quoted: &str| quoted[1..quoted.len() - 1].to_owned();
    let encoded: String = byte_serialize(value.as_bytes()).collect();
    let forms = [value.to_owned(), inside(&escaped), inside(&json), encoded.replace('+', "%20"), encoded];
    let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
    for form in forms {
        if form.len() >= SHORTEST && !known.contains(&form) {
            known.push(form);
        }
    }
    known.sort_by_key(|form| std::cmp::Reverse(form.len()));
}

/// Registers the secrets in a URL, since messages of other libraries may contain only parts of it, and those in the
/// environment variables of object stores.
pub fn keep_of_url(url: &Url) {
    static ENVIRONMENT: Once = Once::new();
    ENVIRONMENT.call_once(|| {
        let of_a_cloud = |name: &str| ["AWS_", "AZURE_", "GOOGLE_"].iter().any(|cloud| name.starts_with(cloud));
        let text =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        text.filter(|(name, _)| of_a_cloud(name) && is_secret_name(name)).for_each(|(_, value)| keep(&value));
    });
    url.password().into_iter().for_each(keep_encoded);
    if url.password().is_none() && whole_user_is_secret(url.scheme()) {
        keep_encoded(url.username());
    }
    for pair in url.query().unwrap_or_default().split(['&', ';']) {
        if let Some((_, value)) = pair.split_once('=').filter(|(name, _)| is_secret_name(name)) {
            keep_encoded(value);
        }
    }
}

/// Registers a value in the spelling of a URL.
fn keep_encoded(value: &str) {
    if value.len() < SHORTEST {
        return;
    }
    keep(value);
    keep(&percent_decoded(value));
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether a variable of the environment or a parameter of a URL holds a secret, by its name.
pub fn is_secret_name(name: &str) -> bool {
    const ANYWHERE: [&str; 10] = [
        "password",
        "passwd",
        "passphrase",
        "secret",
        "token",
        "signature",
        "credential",
        "apikey",
        "accesskey",
        "accountkey",
    ];
    const WORDS: [&str; 10] = ["pass", "pw", "pwd", "sig", "sas", "auth", "cred", "creds", "jwt", "bearer"];
    // The shell's variable for the working directory.
    if ["PWD", "OLDPWD"].contains(&name) {
        return false;
    }
    let name = percent_decoded(name).to_lowercase();
    let mut words = name.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    let joined: String = words.clone().collect();
    ANYWHERE.iter().any(|part| joined.contains(part))
        || words.clone().any(|word| WORDS.contains(&word))
        || words.next_back() == Some("key")
}

/// Whether a value looks randomly generated: long, of letters and digits, not a path. In a URL such a value is probably
/// a secret, whatever its variable is called.
pub fn looks_drawn(value: &str) -> bool {
    const LONG: usize = 16;
    let has = |kind: fn(&char) -> bool| value.chars().any(|c| kind(&c));
    value.len() >= LONG
        && has(char::is_ascii_digit)
        && has(char::is_ascii_alphabetic)
        && !value.contains(['/', ' ', '.'])
}

/// The text with its secrets replaced.
pub fn redacted(text: &str) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(text);
    for form in KNOWN.read().unwrap_or_else(PoisonError::into_inner).iter() {
        if text.contains(form.as_str()) {
            text = Cow::Owned(text.replace(form.as_str(), REDACTED));
        }
    }
    for redact in [without_users, without_parameters] {
        if let Some(shorter) = redact(&text) {
            text = Cow::Owned(shorter);
        }
    }
    text
}

/// The text with the passwords before the `@` of its URLs replaced; `None` if there are none.
fn without_users(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = text;
    let mut found = false;
    while let Some(at) = rest.find("://") {
        let before = &rest[..at];
        let scheme = before
            .rfind(|c: char| !c.is_ascii_alphanumeric() && !"+-.".contains(c))
            .map_or(0, |end| end + before[end..].chars().next().map_or(1, char::len_utf8));
        let scheme = &before[scheme..];
        let (head, tail) = rest.split_at(at + 3);
        out.push_str(head);
        rest = tail;
        let word = tail.find(|c: char| c.is_whitespace() || "\"'`<>\\".contains(c)).unwrap_or(tail.len());
        let authority = tail[..word].find(['/', '?', '#']).unwrap_or(word);
        let end = tail[..authority].rfind('@').or_else(|| {
            // A password with an unescaped slash: what is after the colon is not a port.
            let (host, port) = tail[..authority].split_once(':')?;
            let is_port = port.bytes().all(|b| b.is_ascii_digit());
            (!host.starts_with('[') && !is_port).then(|| tail[..word].rfind('@')).flatten()
        });
        let Some(end) = end else { continue };
        let user = &tail[..end];
        match user.split_once(':') {
            Some((user, _)) if !whole_user_is_secret(scheme) => out.push_str(&format!("{user}:{REDACTED}")),
            None if !whole_user_is_secret(scheme) => out.push_str(user),
            _ => out.push_str(REDACTED),
        }
        found |= !out.ends_with(user);
        rest = &tail[end..];
    }
    out.push_str(rest);
    found.then_some(out)
}

/// A web address may have a token alone as its user; elsewhere a user without a password is a name (a container's, say).
fn whole_user_is_secret(scheme: &str) -> bool {
    ["http", "https"].iter().any(|web| scheme.eq_ignore_ascii_case(web))
}

/// The text with the values of secret parameters replaced; `None` if there are none.
fn without_parameters(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = text;
    let mut found = false;
    while let Some(at) = rest.find(['?', '&', ';']) {
        let (head, tail) = rest.split_at(at + 1);
        out.push_str(head);
        rest = tail;
        let name = tail.find(|c: char| !c.is_ascii_alphanumeric() && !"_-.%".contains(c)).unwrap_or(tail.len());
        if !tail[name..].starts_with('=') || !is_secret_name(&tail[..name]) {
            continue;
        }
        let value = &tail[name + 1..];
        let end = value.find(|c: char| c.is_whitespace() || "&;#\"'`<>\\".contains(c)).unwrap_or(value.len());
        if end == 0 || &value[..end] == REDACTED {
            continue;
        }
        found = true;
        out.push_str(&tail[..=name]);
        out.push_str(REDACTED);
        rest = &value[end..];
    }
    out.push_str(rest);
    found.then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_urls_are_redacted_wherever_the_url_stands() {
        for (text, expected) in [
            ("cannot use \"https://joe:pa55w0rd@host/x\": no", "cannot use \"https://***@host/x\": no"),
            ("https://tok3n@host:80/x", "https://***@host:80/x"),
            ("https://joe:p@ss@host/x", "https://***@host/x"),
            ("https://joe:pa/ss@host/x y@z", "https://***@host/x y@z"),
            ("s3://key:hush@bucket/x", "s3://key:***@bucket/x"),
            ("abfs://container@account/x", "abfs://container@account/x"),
            ("http://[::1]:80/a@b", "http://[::1]:80/a@b"),
            ("http://host:8080/a@b", "http://host:8080/a@b"),
            ("https://h/x?sv=1&sig=a%2Fb%3D&se=2", "https://h/x?sv=1&sig=***&se=2"),
            ("(https://h/x?X-Amz-Signature=00ff#y)", "(https://h/x?X-Amz-Signature=***#y)"),
            ("https://h/x?api_key=1&page=2;Token=z", "https://h/x?api_key=***&page=2;Token=***"),
            ("{\"path\":\"https://h/?access_token=q\",\"k\":3}", "{\"path\":\"https://h/?access_token=***\",\"k\":3}"),
            ("AccountName=a;AccountKey=Zm9v==;x=1", "AccountName=a;AccountKey=***;x=1"),
            ("a file named?key", "a file named?key"),
            ("ü://ä:ö@ü", "ü://ä:***@ü"),
        ] {
            assert_eq!(redacted(text), expected, "{text}");
            assert_eq!(redacted(expected), expected, "redacted twice");
        }
    }

    #[test]
    fn values_that_were_made_known_are_redacted_in_every_spelling() {
        keep("gr/ape \"juice\"\n#77");
        let text = "a gr/ape \"juice\"\n#77 b";
        assert_eq!(redacted(text), "a *** b");
        assert_eq!(redacted(&format!("{text:?}")), "\"a *** b\"");
        assert_eq!(redacted("https://h/gr%2Fape%20%22juice%22%0A%2377"), "https://h/***");
        keep_of_url(&Url::parse("https://joe:ban%40ana-88@h/x?sig=cher%2Bry-99&page=plum-100").unwrap());
        assert_eq!(redacted("ban@ana-88 cher+ry-99 cher%2Bry-99 plum-100"), "*** *** *** plum-100");
        keep("abc");
        assert_eq!(redacted("abcdef"), "abcdef", "too short to be looked for");
    }

    #[test]
    fn names_of_secrets() {
        for name in ["AWS_SECRET_ACCESS_KEY", "API_KEY", "sig", "X-Amz-Security-Token", "DB_PASS", "key", "MY_TOKEN"] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in ["PWD", "HAPT_DATA", "KEY_COLUMN", "keys", "BYPASSED", "author", "design", "monkey"] {
            assert!(!is_secret_name(name), "{name}");
        }
    }
}
