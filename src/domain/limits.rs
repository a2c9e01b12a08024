//! Every limit of the product, each with a number. `docs/errors.md` repeats them, and each has a test.

/// Largest gRPC message, in bytes.
pub const MESSAGE_BYTES: usize = 1024 * 1024;
/// Largest sealed recovery key (ciphertext with tag), in bytes.
pub const SEALED_KEY_BYTES: usize = 1024;
/// Largest sealed key package (ciphertext with tag), in bytes.
pub const SEALED_PACKAGE_BYTES: usize = 64 * 1024;
/// Longest name of a user, domain, host, operator or ticket, in bytes of UTF-8.
pub const NAME_BYTES: usize = 256;
/// Longest name that an OIDC provider may have for a person, in bytes.
pub const OIDC_SUBJECT_BYTES: usize = 255;
/// Longest free text, in bytes of UTF-8.
pub const TEXT_BYTES: usize = 1024;
/// Most volumes of a device.
pub const DEVICE_VOLUMES: usize = 64;
/// Most key versions in a reply.
pub const REPLY_KEYS: usize = 200;
/// Most users of a device.
pub const DEVICE_USERS: usize = 32;
/// Most items on a page or in a streamed message.
pub const PAGE_ITEMS: usize = 1000;
/// Most open streams on one connection.
pub const CONNECTION_STREAMS: u32 = 100;
/// Most entries of the deny-list.
pub const DENIALS: u64 = 10_000;
/// Most shares that a root key is split into.
pub const KEY_SHARES: u8 = 32;
/// Fewest shares that may open a root key that is split.
pub const LEAST_KEY_THRESHOLD: u8 = 2;
/// Most keys that are sealed anew by one entry of the log.
pub const RESEALED_KEYS: usize = 64;
/// Longest name of a group of devices, in bytes.
pub const GROUP_BYTES: usize = 64;
/// Most groups that a device is in.
pub const DEVICE_GROUPS: usize = 16;
/// Most groups that a grant is limited to: as many as an audit record has room for.
pub const GRANT_GROUPS: usize = 10;
/// Most enrolment tokens. Where there are as many, those that have expired make room for a new one.
pub const TOKENS: u64 = 10_000;
/// Most devices that may enrol with one token.
pub const TOKEN_COUNT: u32 = 100_000;
/// Shortest and longest time that an enrolment token is valid, in milliseconds: a minute and 90 days.
pub const TOKEN_TTL_MS: std::ops::RangeInclusive<u64> = 60_000..=90 * 24 * 3_600_000;
/// Largest certificate request of a device, in bytes.
pub const CSR_BYTES: usize = 4096;
/// Most CAs of devices that the cluster has made, one taking the place of the other.
pub const AGENT_CAS: u32 = 16;
/// How long a certificate that the cluster signs for a device is valid, in days.
pub const AGENT_CERTIFICATE_DAYS: u32 = 90;
/// Requests that are remembered, so that a retry is recognised; the oldest is forgotten first.
pub const REMEMBERED_REQUESTS: u64 = 65_536;
/// How long a retry of a disclosure by the same caller is answered again, in milliseconds.
pub const DISCLOSURE_REPEAT_MS: u64 = 120_000;
/// Disclosures that one requester may make in [`QUOTA_WINDOW_MS`] where nobody has set another number.
pub const QUOTA_DISCLOSURES: u32 = 200;
/// Length of the window that disclosures are counted in, in milliseconds.
pub const QUOTA_WINDOW_MS: u64 = 3_600_000;
/// Most disclosures of one requester in an hour that a policy may allow. More takes two administrators and a mass recovery.
pub const REQUESTER_HOUR: u32 = 1000;
/// Most disclosures of one requester in a day that a policy may allow.
pub const REQUESTER_DAY: u32 = 10_000;
/// Most disclosures of all requesters in an hour that a policy may allow.
pub const CLUSTER_HOUR: u32 = 10_000;
/// Shortest and longest time that an approval may be used, in milliseconds: a minute and 24 hours.
pub const APPROVAL_MS: std::ops::RangeInclusive<u64> = 60_000..=24 * 3_600_000;
/// How long a request for approval waits for somebody to decide on it, in milliseconds.
pub const APPROVAL_REQUEST_MS: u64 = 24 * 3_600_000;
/// Most requests for approval that are kept. Where there are as many, those that are over make room for a new one.
pub const APPROVALS: u64 = 1000;
/// Most requests for approval of one requester that are not over.
pub const REQUESTER_APPROVALS: usize = 20;
/// Most groups of devices under dual control: an audit record names them all.
pub const DUAL_CONTROL_GROUPS: usize = 12;
/// Shortest and longest mass recovery, in milliseconds: five minutes and 24 hours.
pub const MASS_RECOVERY_MS: std::ops::RangeInclusive<u64> = 300_000..=24 * 3_600_000;
/// How long a proposed mass recovery waits for a second administrator, in milliseconds.
pub const MASS_RECOVERY_PROPOSAL_MS: u64 = 3_600_000;
