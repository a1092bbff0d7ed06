using System.Formats.Asn1;
using System.Security.Cryptography;

namespace NbdKit.Server;

/// <summary>Private keys of elliptic curves as certtool of GnuTLS writes them.</summary>
/// <remarks>
/// It puts a zero in front of a number whose first bit is set, as in an INTEGER. The format (RFC 5915, section 3) has a string of
/// fixed length there, and .NET takes nothing else.
/// <code>
/// ECPrivateKey ::= SEQUENCE { version INTEGER, privateKey OCTET STRING, parameters [0] OPTIONAL, publicKey [1] BIT STRING OPTIONAL }
/// </code>
/// </remarks>
internal static class EcPrivateKey
{
    private const string Label = "EC PRIVATE KEY";

    private static readonly Asn1Tag Parameters = new(TagClass.ContextSpecific, 0, isConstructed: true);

    private static readonly Asn1Tag PublicKey = new(TagClass.ContextSpecific, 1, isConstructed: true);

    /// <summary>The text with the key in the form that .NET takes; as it is if there is nothing to change.</summary>
    public static string Normalize(string text)
    {
        if (!PemEncoding.TryFind(text, out PemFields fields) || text[fields.Label] != Label)
        {
            return text;
        }
        try
        {
            byte[] key = Convert.FromBase64String(text[fields.Base64Data]);
            return PemEncoding.WriteString(Label, Rewrite(key));
        }
        catch (AsnContentException)
        {
            // What it is instead is for the reader of the key to say.
            return text;
        }
    }

    private static byte[] Rewrite(byte[] key)
    {
        AsnReader fields = new AsnReader(key, AsnEncodingRules.BER).ReadSequence();
        ReadOnlyMemory<byte> version = fields.ReadEncodedValue();
        byte[] number = fields.ReadOctetString();
        ReadOnlyMemory<byte> parameters = Optional(fields, Parameters);
        ReadOnlyMemory<byte> point = Optional(fields, PublicKey);
        if (point.Length > 0)
        {
            // One byte of form, then two coordinates; the number is as long as one of them.
            int length = (new AsnReader(point, AsnEncodingRules.BER).ReadSequence(PublicKey).ReadBitString(out _).Length - 1) / 2;
            if (number.Length == length + 1 && number[0] == 0)
            {
                number = number[1..];
            }
        }
        var writer = new AsnWriter(AsnEncodingRules.DER);
        using (writer.PushSequence())
        {
            writer.WriteEncodedValue(version.Span);
            writer.WriteOctetString(number);
            Write(writer, parameters);
            Write(writer, point);
        }
        return writer.Encode();
    }

    private static ReadOnlyMemory<byte> Optional(AsnReader fields, Asn1Tag tag)
        => fields.HasData && fields.PeekTag() == tag ? fields.ReadEncodedValue() : default;

    private static void Write(AsnWriter writer, ReadOnlyMemory<byte> value)
    {
        if (value.Length > 0)
        {
            writer.WriteEncodedValue(value.Span);
        }
    }
}
