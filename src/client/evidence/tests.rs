mod checkpoint;
mod export;
#[cfg(feature = "server")]
mod hostile;
mod receipt;

#[cfg(feature = "server")]
pub(crate) use hostile::seeds;
