//! Who may come with access tokens: `[oidc]`, checked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::validate::{between, fault, readable, required};
use super::{ConfigError, OidcLayer};
use crate::domain::{FieldError, Issuer, Role};
use crate::oidc::{Fetcher, KeyTimes, SigningAlgorithm, TokenRules, Tokens};
use crate::tls::TlsError;

/// How long a question to the provider may take.
const ASKING: Duration = Duration::from_secs(5);
/// Oldest token that any configuration may take, in seconds.
const MAX_AGE_S: u64 = 15 * 60;
/// Longest audience, claim or group, in bytes.
const NAME_BYTES: usize = 256;
/// Most groups with roles.
const GROUPS: usize = 1000;

/// People with access tokens of an OIDC provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OidcConfig {
    /// URL of the provider.
    #[serde(serialize_with = "printed")]
    pub issuer: Issuer,
    /// Whom tokens have to be for.
    pub audience: String,
    /// How tokens may be signed.
    #[serde(serialize_with = "algorithm_names")]
    pub algorithms: BTreeSet<SigningAlgorithm>,
    /// CA of the provider's certificate.
    pub ca_file: PathBuf,
    /// The claim that names a person's groups.
    pub group_claim: String,
    /// How old a token may be, in seconds.
    pub max_age_s: u64,
    /// How far the provider's clock may be off, in seconds.
    pub leeway_s: u64,
    /// How often the provider's keys are read, in seconds.
    pub keys_refresh_s: u64,
    /// How long keys are good that can't be read again, in seconds.
    pub keys_max_age_s: u64,
    /// The roles of each group.
    #[serde(serialize_with = "role_names")]
    pub roles: BTreeMap<String, BTreeSet<Role>>,
}

fn printed<S: Serializer>(issuer: &Issuer, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(issuer.as_str())
}

fn algorithm_names<S: Serializer>(
    algorithms: &BTreeSet<SigningAlgorithm>,
    out: S,
) -> Result<S::Ok, S::Error> {
    out.collect_seq(algorithms.iter().map(|algorithm| algorithm.as_str()))
}

fn role_names<S: Serializer>(
    roles: &BTreeMap<String, BTreeSet<Role>>,
    out: S,
) -> Result<S::Ok, S::Error> {
    let names = |roles: &BTreeSet<Role>| -> Vec<_> { roles.iter().map(|r| r.as_str()).collect() };
    out.collect_map(roles.iter().map(|(group, roles)| (group, names(roles))))
}

impl OidcConfig {
    /// What checks tokens by this.
    ///
    /// # Errors
    /// If the CA file can't be used.
    pub fn tokens(&self) -> Result<Tokens, TlsError> {
        let rules = TokenRules {
            issuer: self.issuer.clone(),
            audience: self.audience.clone(),
            algorithms: self.algorithms.clone(),
            group_claim: self.group_claim.clone(),
            roles: self.roles.clone(),
            max_age_s: self.max_age_s,
            leeway_s: self.leeway_s,
        };
        let seconds = Duration::from_secs;
        let times = KeyTimes::new(seconds(self.keys_refresh_s), seconds(self.keys_max_age_s));
        Ok(Tokens::new(rules, Fetcher::new(&self.ca_file, ASKING)?, times))
    }
}

/// `None` if nothing of it is configured.
pub(super) fn oidc(layer: OidcLayer) -> Result<Option<OidcConfig>, ConfigError> {
    let untouched = layer.issuer.is_none()
        && layer.audience.is_none()
        && layer.algorithms.is_none()
        && layer.ca_file.is_none()
        && layer.group_claim.is_none()
        && layer.roles.is_none()
        && layer.max_age_s.is_none()
        && layer.leeway_s.is_none()
        && layer.keys_refresh_s.is_none()
        && layer.keys_max_age_s.is_none();
    if untouched {
        return Ok(None);
    }
    let issuer = required("oidc.issuer", layer.issuer)?;
    let issuer: Issuer =
        issuer.parse().map_err(|error: FieldError| fault("oidc.issuer", error.what))?;
    let audience = name("oidc.audience", required("oidc.audience", layer.audience)?)?;
    let group_claim = layer.group_claim.unwrap_or_else(|| "groups".to_owned());
    let max_age_s = between("oidc.max_age_s", layer.max_age_s, MAX_AGE_S, 60..=MAX_AGE_S)?;
    let leeway_s = between("oidc.leeway_s", layer.leeway_s, 30, 0..=120)?;
    let refresh = between("oidc.keys_refresh_s", layer.keys_refresh_s, 300, 1..=3600)?;
    let max_age = between("oidc.keys_max_age_s", layer.keys_max_age_s, 3600, 1..=86_400)?;
    if max_age < refresh {
        return Err(fault("oidc.keys_max_age_s", "must be at least oidc.keys_refresh_s"));
    }
    let config = OidcConfig {
        issuer,
        audience,
        algorithms: algorithms(layer.algorithms)?,
        ca_file: readable("oidc.ca_file", layer.ca_file)?,
        group_claim: name("oidc.group_claim", group_claim)?,
        max_age_s,
        leeway_s,
        keys_refresh_s: refresh,
        keys_max_age_s: max_age,
        roles: roles(layer.roles)?,
    };
    // A CA that the server could not use later is refused now.
    match config.tokens() {
        Ok(_) => Ok(Some(config)),
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            Err(fault("oidc.ca_file", format!("{error}{}", cause.unwrap_or_default())))
        }
    }
}

fn name(key: &'static str, text: String) -> Result<String, ConfigError> {
    if (1..=NAME_BYTES).contains(&text.len()) && !text.chars().any(char::is_control) {
        Ok(text)
    } else {
        Err(fault(key, "must be 1 to 256 bytes without control characters"))
    }
}

/// RS256 and ES256 by default: what nearly every provider signs with.
fn algorithms(names: Option<Vec<String>>) -> Result<BTreeSet<SigningAlgorithm>, ConfigError> {
    let Some(names) = names else {
        return Ok([SigningAlgorithm::Rs256, SigningAlgorithm::Es256].into());
    };
    let parsed = names.iter().map(|name| name.parse()).collect::<Result<BTreeSet<_>, FieldError>>();
    let parsed = parsed.map_err(|error| fault("oidc.algorithms", error.what))?;
    if parsed.is_empty() { Err(fault("oidc.algorithms", "names none")) } else { Ok(parsed) }
}

fn roles(
    groups: Option<BTreeMap<String, Vec<String>>>,
) -> Result<BTreeMap<String, BTreeSet<Role>>, ConfigError> {
    let key = "oidc.roles";
    let groups = groups.unwrap_or_default();
    if groups.is_empty() {
        return Err(fault(key, "gives no group a role, so that nobody could do anything"));
    }
    if groups.len() > GROUPS {
        return Err(fault(key, format!("has {} groups, at most {GROUPS} may be", groups.len())));
    }
    let mut roles = BTreeMap::new();
    for (group, names) in groups {
        let of = |what: &str| fault(key, format!("{group:?}: {what}"));
        let parsed: Result<BTreeSet<Role>, FieldError> =
            names.iter().map(|name| name.parse()).collect();
        let parsed = parsed.map_err(|error| of(&error.what))?;
        if parsed.is_empty() {
            return Err(of("has no role"));
        }
        if parsed.contains(&Role::DataMigration) {
            return Err(of("data-migration takes a certificate"));
        }
        roles.insert(name(key, group)?, parsed);
    }
    Ok(roles)
}
