//! Operation errors: one or more causes (RFC 5354 section 3.12).

use super::cause::{Cause, CauseCode, DecodeError};
use super::code::ParamType;
use super::reader::Param;
use super::writer::{Writer, param_len};
use super::{Policy, Transport};
use std::fmt;

/// An operation error parameter: one or more causes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OperationError(pub Vec<Cause>);

impl Cause {
    /// A cause that quotes a transport (RFC 5354 sections 3.12.4 and 3.12.8).
    pub fn about_transport(code: CauseCode, transport: &Transport) -> Cause {
        let mut data = Vec::new();
        Writer::parameters(&mut data, |w| transport.write(w));
        Cause { code, data }
    }

    /// A cause that quotes a policy (RFC 5354 sections 3.12.4 and 3.12.6).
    pub fn about_policy(code: CauseCode, policy: &Policy) -> Cause {
        let mut data = Vec::new();
        Writer::parameters(&mut data, |w| policy.write(w));
        Cause { code, data }
    }
}

impl From<CauseCode> for OperationError {
    fn from(code: CauseCode) -> OperationError {
        OperationError(vec![Cause::bare(code)])
    }
}

impl OperationError {
    /// The first cause's code; an error without any cause is an unspecified one.
    pub fn code(&self) -> CauseCode {
        self.0.first().map_or(CauseCode::UNSPECIFIED, |cause| cause.code)
    }

    /// Bytes of the whole parameter, padding included.
    pub fn encoded_len(&self) -> usize {
        param_len(self.0.iter().map(|cause| param_len(cause.data.len())).sum())
    }

    pub(crate) fn write(&self, w: &mut Writer<'_>) {
        w.param(ParamType::ERROR, |w| {
            for cause in &self.0 {
                w.tlv(cause.code.0, |w| w.bytes(&cause.data));
            }
        });
    }

    pub(crate) fn decode(mut param: Param<'_>) -> Result<OperationError, DecodeError> {
        let mut causes = Vec::new();
        while !param.value.is_empty() {
            // A cause is laid out as a parameter is.
            let mut cause = param.value.param()?;
            causes.push(Cause { code: CauseCode(cause.kind.0), data: cause.value.rest().to_vec() });
        }
        Ok(OperationError(causes))
    }
}

/// `unknown pool handle (0x9)`, several separated by commas.
impl fmt::Display for OperationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, cause) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{cause}")?;
        }
        if self.0.is_empty() { f.write_str("no cause") } else { Ok(()) }
    }
}
