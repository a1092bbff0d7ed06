using System.Formats.Asn1;
using System.Security.Cryptography;
using NbdKit.Server;

namespace NbdKit.Tests.Server;

public sealed class EcPrivateKeyTests
{
    private const string Label = "EC PRIVATE KEY";

    [Test]
    public void A_zero_too_many_is_taken_away()
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        AsnReader fields = new AsnReader(key.ExportECPrivateKey(), AsnEncodingRules.DER).ReadSequence();
        var writer = new AsnWriter(AsnEncodingRules.DER);
        using (writer.PushSequence())
        {
            writer.WriteEncodedValue(fields.ReadEncodedValue().Span);
            writer.WriteOctetString([0, .. fields.ReadOctetString()]);
            while (fields.HasData)
            {
                writer.WriteEncodedValue(fields.ReadEncodedValue().Span);
            }
        }
        string odd = "some words\n" + PemEncoding.WriteString(Label, writer.Encode());
        using var read = ECDsa.Create();
        Assert.That(() => read.ImportFromPem(odd), Throws.InstanceOf<CryptographicException>(), "or all this can go");

        read.ImportFromPem(EcPrivateKey.Normalize(odd));

        Assert.That(read.ExportECPrivateKey(), Is.EqualTo(key.ExportECPrivateKey()));
    }

    [Test]
    public void All_else_stays_as_it_is()
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP384);
        foreach (string text in new[]
        {
            "", "nothing", key.ExportPkcs8PrivateKeyPem(), key.ExportECPrivateKeyPem(), PemEncoding.WriteString(Label, [1, 2, 3]),
            PemEncoding.WriteString(Label, [0x30, 0]),
        })
        {
            Assert.That(EcPrivateKey.Normalize(text), Is.EqualTo(text));
        }
    }
}
