//! The seal: asking for it, sealing, and giving shares.

use holdfast_proto::v1;
use holdfast_proto::v1::operator_service_client::OperatorServiceClient;

use super::cluster::wiped;
use super::error::ClientError;
use super::{Client, new_request_id, wire};
use crate::crypto::{RootKey, Share};
use crate::domain::{Epoch, ShareSet};

impl Client {
    /// Whether the answering node can open keys. Make the client of one address to ask a certain one.
    ///
    /// # Errors
    /// If the caller may not ask, or no server answers.
    pub async fn seal_status(&self) -> Result<v1::GetSealStatusResponse, ClientError> {
        self.call(&v1::GetSealStatusRequest {}, |channel, request| async move {
            OperatorServiceClient::new(channel).get_seal_status(request).await
        })
        .await
    }

    /// Gives a share to the server of this client, which should have one address only: each server needs its own shares.
    ///
    /// # Errors
    /// What is wrong with the share; if the caller has no role, or the server doesn't answer.
    pub async fn give_share(&self, share: &Share) -> Result<v1::GiveShareResponse, ClientError> {
        let text = share.expose_text();
        let message =
            v1::GiveShareRequest { request_id: new_request_id(), share: wiped(text.as_bytes()) };
        self.call(&message, |channel, request| async move {
            OperatorServiceClient::new(channel).give_share(request).await
        })
        .await
    }

    /// Makes the epoch after `current`; answers the newest epoch, and whether this made it.
    ///
    /// # Errors
    /// If the caller is no administrator, the newest epoch is another one, or no server answers that is unsealed.
    pub async fn rotate_escrow_key(
        &self,
        current: Epoch,
    ) -> Result<v1::RotateEscrowKeyResponse, ClientError> {
        let message = v1::RotateEscrowKeyRequest { current_epoch: current.get() };
        self.call(&message, |channel, request| async move {
            OperatorServiceClient::new(channel).rotate_escrow_key(request).await
        })
        .await
    }

    /// Has everything that the root key wraps wrapped by another one. Answers whether this changed it.
    ///
    /// # Errors
    /// If the caller is no administrator, or no server answers that has the root key.
    pub async fn rekey(
        &self,
        root: &RootKey,
        shares: Option<ShareSet>,
    ) -> Result<bool, ClientError> {
        let message = v1::RekeyRootKeyRequest {
            root_key: wiped(root.expose_secret()),
            share_set: shares.as_ref().map(wire::share_set),
        };
        let answer = self
            .call(&message, |channel, request| async move {
                OperatorServiceClient::new(channel).rekey_root_key(request).await
            })
            .await?;
        Ok(answer.changed)
    }

    /// Seals the next keys to the newest epoch. `page_token` is empty to begin, and comes from the answer before.
    ///
    /// # Errors
    /// If the caller is no administrator, or no server answers that is unsealed.
    pub async fn reseal_keys(
        &self,
        page_token: &str,
    ) -> Result<v1::ResealKeysResponse, ClientError> {
        let message = v1::ResealKeysRequest { page_token: page_token.to_owned() };
        self.call(&message, |channel, request| async move {
            OperatorServiceClient::new(channel).reseal_keys(request).await
        })
        .await
    }

    /// Seals all nodes. Answers whether they were not sealed before.
    ///
    /// # Errors
    /// If the caller is no administrator, or no server answers.
    pub async fn seal_cluster(&self, reason: &str) -> Result<bool, ClientError> {
        let message =
            v1::SealClusterRequest { request_id: new_request_id(), reason: reason.to_owned() };
        let answer = self
            .call(&message, |channel, request| async move {
                OperatorServiceClient::new(channel).seal_cluster(request).await
            })
            .await?;
        Ok(answer.changed)
    }

    /// Lets nodes read the root key from their files again. Answers whether the cluster was sealed.
    ///
    /// # Errors
    /// If the caller is no administrator, or no server answers.
    pub async fn unseal_cluster(&self) -> Result<bool, ClientError> {
        let message = v1::UnsealClusterRequest { request_id: new_request_id() };
        let answer = self
            .call(&message, |channel, request| async move {
                OperatorServiceClient::new(channel).unseal_cluster(request).await
            })
            .await?;
        Ok(answer.changed)
    }
}
