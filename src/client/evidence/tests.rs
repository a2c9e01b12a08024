mod checkpoint;
mod export;
#[cfg(feature = "server")]
mod hostile;
mod receipt;
