//! Certificates of a CA that is made for the test: as much of X.509 as TLS asks for, in DER by hand.
use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING as ALGORITHM, EcdsaKeyPair, KeyPair as _},
};

const ECDSA_WITH_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
const ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1d, 0x11];

const INTEGER: u8 = 2;
const BITS: u8 = 3;
const OCTETS: u8 = 4;
const OID: u8 = 6;
const UTF8: u8 = 12;
const TIME: u8 = 23;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;

/// A certificate and its key.
pub struct Certificate {
    pub der: Vec<u8>,
    pub pkcs8: Vec<u8>,
}

impl Certificate {
    /// One that may sign others, by itself.
    pub fn authority(name: &str) -> Self {
        let pkcs8 = new_key();
        let truth = der(SEQUENCE, &[&[1, 1, 0xff]]);
        let extension = der(SEQUENCE, &[&der(OID, &[BASIC_CONSTRAINTS]), &[1, 1, 0xff], &der(OCTETS, &[&truth])]);
        Self { der: signed((name, &pkcs8), (name, &pkcs8), &extension), pkcs8 }
    }

    /// One that it signs, for a server at 127.0.0.1.
    pub fn of_a_server(&self, authority: &str) -> Self {
        let pkcs8 = new_key();
        let address = der(SEQUENCE, &[&der(0x87, &[&[127, 0, 0, 1]])]);
        let extension = der(SEQUENCE, &[&der(OID, &[ALTERNATIVE_NAME]), &der(OCTETS, &[&address])]);
        Self { der: signed((authority, &self.pkcs8), ("server", &pkcs8), &extension), pkcs8 }
    }

    pub fn pem(&self) -> String {
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(&self.der))
    }
}

fn new_key() -> Vec<u8> {
    EcdsaKeyPair::generate_pkcs8(&ALGORITHM, &SystemRandom::new()).unwrap().as_ref().to_vec()
}

fn key(pkcs8: &[u8]) -> EcdsaKeyPair {
    EcdsaKeyPair::from_pkcs8(&ALGORITHM, pkcs8, &SystemRandom::new()).unwrap()
}

/// What `issuer` says of `subject`: names and keys.
fn signed(issuer: (&str, &[u8]), subject: (&str, &[u8]), extension: &[u8]) -> Vec<u8> {
    let algorithm = der(SEQUENCE, &[&der(OID, &[ECDSA_WITH_SHA256])]);
    let validity = der(SEQUENCE, &[&der(TIME, &[b"200101000000Z"]), &der(TIME, &[b"491231235959Z"])]);
    let kind = der(SEQUENCE, &[&der(OID, &[EC_PUBLIC_KEY]), &der(OID, &[P256])]);
    let public = der(SEQUENCE, &[&kind, &der(BITS, &[&[0], key(subject.1).public_key().as_ref()])]);
    let said = der(
        SEQUENCE,
        &[
            &der(0xa0, &[&der(INTEGER, &[&[2]])]),
            &der(INTEGER, &[&[1]]),
            &algorithm,
            &name(issuer.0),
            &validity,
            &name(subject.0),
            &public,
            &der(0xa3, &[&der(SEQUENCE, &[extension])]),
        ],
    );
    let signature = key(issuer.1).sign(&SystemRandom::new(), &said).unwrap();
    der(SEQUENCE, &[&said, &algorithm, &der(BITS, &[&[0], signature.as_ref()])])
}

fn name(text: &str) -> Vec<u8> {
    der(SEQUENCE, &[&der(SET, &[&der(SEQUENCE, &[&der(OID, &[COMMON_NAME]), &der(UTF8, &[text.as_bytes()])])])])
}

/// A tag, a length, and what is in it.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = content.len();
    let mut bytes = match length {
        0..128 => vec![tag, length as u8],
        128..256 => vec![tag, 0x81, length as u8],
        _ => vec![tag, 0x82, (length >> 8) as u8, length as u8],
    };
    bytes.extend(content);
    bytes
}
