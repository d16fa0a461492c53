//! Whether a file that was kept is still what the server has.

use web_sys::Response;

/// What an answer says of the bytes behind an address.
#[derive(Debug, Clone)]
pub struct Version {
    status: u16,
    etag: Option<String>,
    modified: Option<String>,
    length: Option<String>,
}

/// What a server's answer says of a kept file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It has not changed.
    Same,
    /// It has changed, or is gone.
    Changed,
    /// The server cannot answer now (5xx, 408, 429).
    Unavailable,
    /// The answer has nothing by which to tell, or it is a refusal.
    Silent,
}

impl Version {
    pub fn of(response: &Response) -> Self {
        let header = |name| response.headers().get(name).ok().flatten();
        Self {
            status: response.status(),
            // A server that compresses marks the entity tag of the same file as weak.
            etag: header("etag").map(|tag| tag.trim_start_matches("W/").to_owned()),
            modified: header("last-modified"),
            length: header("content-length"),
        }
    }

    fn is_ok(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Compares with what the server says now.
    ///
    /// Only an entity tag or a date shows that a file is the same. A length shows no more than
    /// that it differs: most retrained weights are as long as those before.
    pub fn judge(&self, now: &Self) -> Verdict {
        if is_absent(now.status) {
            return if is_absent(self.status) { Verdict::Same } else { Verdict::Changed };
        }
        if matches!(now.status, 408 | 429) || (now.status >= 500 && now.status != 501) {
            return Verdict::Unavailable;
        }
        if !now.is_ok() {
            return Verdict::Silent;
        }
        if !self.is_ok() {
            return Verdict::Changed;
        }
        let same = |then: &Option<String>, now: &Option<String>| Some(then.as_ref()? == now.as_ref()?);
        let checks = [same(&self.etag, &now.etag), same(&self.modified, &now.modified)];
        if same(&self.length, &now.length) == Some(false) || checks.contains(&Some(false)) {
            return Verdict::Changed;
        }
        if checks.contains(&Some(true)) { Verdict::Same } else { Verdict::Silent }
    }
}

/// Whether a status says that there is no such file.
pub fn is_absent(status: u16) -> bool {
    matches!(status, 404 | 410)
}
