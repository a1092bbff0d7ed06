using System.Formats.Asn1;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Text;

namespace NbdKit.Server;

/// <summary>Writes the name in a certificate as RFC 4514 has it, the most specific part first: <c>CN=alice,O=Example</c>.</summary>
/// <remarks>The text that .NET makes has blanks behind its commas, and quotes where the RFC has backslashes.</remarks>
internal static class DistinguishedName
{
    /// <summary>The text; of a name that is none, its bytes.</summary>
    public static string Text(X500DistinguishedName name)
    {
        try
        {
            return Parts(name);
        }
        catch (Exception e) when (e is CryptographicException or AsnContentException)
        {
            return "#" + Convert.ToHexStringLower(name.RawData);
        }
    }

    private static string Parts(X500DistinguishedName name)
    {
        var text = new StringBuilder();
        foreach (X500RelativeDistinguishedName part in name.EnumerateRelativeDistinguishedNames(reversed: true))
        {
            char separator = ',';
            // RelativeDistinguishedName ::= SET OF SEQUENCE { type OBJECT IDENTIFIER, value ANY }
            AsnReader attributes = new AsnReader(part.RawData, AsnEncodingRules.DER).ReadSetOf();
            while (attributes.HasData)
            {
                AsnReader attribute = attributes.ReadSequence();
                if (text.Length > 0)
                {
                    text.Append(separator);
                }
                string type = attribute.ReadObjectIdentifier();
                AppendAttribute(text, type, attribute.ReadEncodedValue());
                separator = '+';
            }
        }
        return text.ToString();
    }

    private static void AppendAttribute(StringBuilder text, string type, ReadOnlyMemory<byte> value)
    {
        string? keyword = Keyword(type);
        text.Append(keyword ?? type).Append('=');
        if (keyword is not null && Characters(value) is { } characters)
        {
            AppendEscaped(text, characters);
        }
        else
        {
            text.Append('#').Append(Convert.ToHexStringLower(value.Span));
        }
    }

    /// <summary>The keywords of RFC 4514, section 3, and one that is in wide use.</summary>
    private static string? Keyword(string type) => type switch
    {
        "2.5.4.3" => "CN",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "STREET",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        "1.2.840.113549.1.9.1" => "EMAIL",
        _ => null,
    };

    private static string? Characters(ReadOnlyMemory<byte> value)
    {
        try
        {
            var reader = new AsnReader(value, AsnEncodingRules.DER);
            return reader.ReadCharacterString((UniversalTagNumber)reader.PeekTag().TagValue);
        }
        catch (Exception e) when (e is AsnContentException or ArgumentException)
        {
            return null;
        }
    }

    private static void AppendEscaped(StringBuilder text, string value)
    {
        for (int i = 0; i < value.Length; i++)
        {
            char c = value[i];
            if (c == '\0')
            {
                text.Append("\\00");
                continue;
            }
            bool atEdge = (i == 0 && c is (' ' or '#')) || (i == value.Length - 1 && c == ' ');
            if (atEdge || c is '"' or '+' or ',' or ';' or '<' or '>' or '\\')
            {
                text.Append('\\');
            }
            text.Append(c);
        }
    }
}
