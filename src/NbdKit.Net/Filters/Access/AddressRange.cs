using System.Net;
using System.Net.Sockets;

namespace NbdKit.Filters.Access;

/// <summary>A range of IP addresses: those that begin with the same bits.</summary>
/// <remarks>
/// An IPv4 address that comes in IPv6 form (::ffff:192.0.2.1), as sockets for both families show it, is an IPv4 address here.
/// The scope of a link-local address says which link it came by, and is no part of the address.
/// </remarks>
internal sealed class AddressRange
{
    private const int MappedPrefix = 96;

    private readonly byte[] _bytes;
    private readonly int _prefix;

    private AddressRange(byte[] bytes, int prefix)
    {
        _bytes = bytes;
        _prefix = prefix;
    }

    /// <summary>Reads an address, or an address and the length of its prefix.</summary>
    /// <returns>The range; null if the text does not look like an address at all.</returns>
    /// <exception cref="FormatException">It looks like one and is none.</exception>
    public static AddressRange? Parse(string text)
    {
        int slash = text.IndexOf('/');
        ReadOnlySpan<char> address = slash < 0 ? text : text.AsSpan(0, slash);
        bool isV6 = address.Contains(':');
        if (!isV6 && (address.Length == 0 || !char.IsAsciiDigit(address[0])))
        {
            return null;
        }
        byte[] bytes = isV6 ? ParseV6(address, text) : ParseV4(address, text);
        int bits = bytes.Length * 8;
        int prefix = slash < 0 ? bits : ParseNumber(text.AsSpan(slash + 1), bits, text);
        if (isV6 && prefix >= MappedPrefix && new IPAddress(bytes).IsIPv4MappedToIPv6)
        {
            bytes = bytes[^4..];
            prefix -= MappedPrefix;
        }
        return new AddressRange(bytes, prefix);
    }

    /// <summary>The address that rules are about.</summary>
    public static IPAddress Normalize(IPAddress address) => address.IsIPv4MappedToIPv6 ? address.MapToIPv4() : address;

    /// <summary>Whether a normalized address is in the range.</summary>
    public bool Contains(IPAddress address)
    {
        Span<byte> bytes = stackalloc byte[16];
        if (!address.TryWriteBytes(bytes, out int length) || length != _bytes.Length)
        {
            return false;
        }
        int whole = _prefix / 8;
        if (!bytes[..whole].SequenceEqual(_bytes.AsSpan(0, whole)))
        {
            return false;
        }
        int rest = _prefix % 8;
        return rest == 0 || (bytes[whole] ^ _bytes[whole]) >> (8 - rest) == 0;
    }

    // The runtime's parser also takes 127.1, 0x7f.1 and 010.0.0.1, of which people think differently than it does.
    private static byte[] ParseV4(ReadOnlySpan<char> address, string text)
    {
        byte[] bytes = new byte[4];
        int count = 0;
        foreach (Range part in address.Split('.'))
        {
            if (count == bytes.Length)
            {
                throw Bad(text);
            }
            bytes[count++] = (byte)ParseNumber(address[part], 255, text);
        }
        return count == bytes.Length ? bytes : throw Bad(text);
    }

    private static byte[] ParseV6(ReadOnlySpan<char> address, string text)
    {
        if (address.Contains('%'))
        {
            throw new FormatException($"'{text}' names a scope; a rule holds for an address on every link.");
        }
        return !address.Contains('[') && IPAddress.TryParse(address, out IPAddress? parsed)
            && parsed.AddressFamily == AddressFamily.InterNetworkV6
            ? parsed.GetAddressBytes()
            : throw Bad(text);
    }

    private static int ParseNumber(ReadOnlySpan<char> digits, int maximum, string text)
    {
        int value = 0;
        if (digits.Length is 0 or > 3 || (digits.Length > 1 && digits[0] == '0'))
        {
            throw Bad(text);
        }
        foreach (char digit in digits)
        {
            value = char.IsAsciiDigit(digit) ? (value * 10) + (digit - '0') : throw Bad(text);
        }
        return value <= maximum ? value : throw Bad(text);
    }

    private static FormatException Bad(string text) => new($"'{text}' is not an IP address or range of addresses.");
}
