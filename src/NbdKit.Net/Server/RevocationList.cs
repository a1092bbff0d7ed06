using System.Formats.Asn1;
using System.Security.Cryptography.X509Certificates;

namespace NbdKit.Server;

/// <summary>A certificate revocation list (RFC 5280, section 5): an issuer, and the serial numbers that it took back.</summary>
/// <remarks>
/// .NET looks revocations up on the network or not at all; it has no way to be given a list.
/// <code>
/// CertificateList ::= SEQUENCE { tbsCertList, signatureAlgorithm, signature }
/// TBSCertList     ::= SEQUENCE { version INTEGER OPTIONAL, signature SEQUENCE, issuer SEQUENCE, thisUpdate Time,
///                                nextUpdate Time OPTIONAL,
///                                revokedCertificates SEQUENCE OF SEQUENCE { serial INTEGER, … } OPTIONAL, … }
/// </code>
/// </remarks>
internal sealed class RevocationList
{
    private readonly byte[] _issuer;
    private readonly HashSet<string> _serials = new(StringComparer.Ordinal);

    private RevocationList(AsnReader body)
    {
        if (body.PeekTag() == Asn1Tag.Integer)
        {
            body.ReadInteger();
        }
        body.ReadSequence();
        _issuer = body.ReadEncodedValue().ToArray();
        while (body.HasData && IsTime(body.PeekTag()))
        {
            body.ReadEncodedValue();
        }
        if (!body.HasData || body.PeekTag() != Asn1Tag.Sequence)
        {
            return;
        }
        AsnReader revoked = body.ReadSequence();
        while (revoked.HasData)
        {
            _serials.Add(Convert.ToHexString(revoked.ReadSequence().ReadIntegerBytes().Span));
        }
    }

    /// <summary>Reads a list in DER.</summary>
    /// <exception cref="ArgumentException">It is none.</exception>
    public static RevocationList Read(ReadOnlyMemory<byte> list)
    {
        try
        {
            return new RevocationList(new AsnReader(list, AsnEncodingRules.DER).ReadSequence().ReadSequence());
        }
        catch (AsnContentException e)
        {
            throw new ArgumentException($"This is not a certificate revocation list: {e.Message}", nameof(list), e);
        }
    }

    /// <summary>Whether the certificate was taken back.</summary>
    public bool Names(X509Certificate2 certificate)
        => certificate.IssuerName.RawData.AsSpan().SequenceEqual(_issuer)
            && _serials.Contains(Convert.ToHexString(certificate.SerialNumberBytes.Span));

    private static bool IsTime(Asn1Tag tag) => tag == Asn1Tag.UtcTime || tag == Asn1Tag.GeneralizedTime;
}
