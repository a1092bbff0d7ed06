namespace NbdKit.Filters.Luks;

/// <summary>A cipher with its mode, such as <c>aes-xts-plain64</c>.</summary>
/// <param name="IsXts">Whether the mode is XTS; otherwise it is CBC.</param>
/// <param name="Iv">How sectors get their initialization vectors.</param>
/// <param name="IvHash">The hash of <see cref="IvKind.Essiv"/>.</param>
internal sealed record CipherSpec(bool IsXts, IvKind Iv, HashSpec IvHash)
{
    /// <summary>Bytes in a block of AES.</summary>
    public const int Block = 16;

    /// <summary>Parses what a header says.</summary>
    /// <param name="text">Cipher, mode and initialization vectors.</param>
    /// <param name="keyBytes">The length of the key.</param>
    /// <exception cref="NbdException">It is not supported, or goes with other keys.</exception>
    public static CipherSpec Parse(string text, int keyBytes)
    {
        string[] parts = text.ToLowerInvariant().Split('-');
        if (parts is not ["aes", "xts" or "cbc", { } vectors])
        {
            throw Fault.Refused($"the cipher '{text}' is not supported (AES with XTS or CBC is)");
        }
        bool isXts = parts[1] == "xts";
        if (!(isXts ? keyBytes is 32 or 48 or 64 : keyBytes is 16 or 24 or 32))
        {
            throw Fault.Refused($"a key of {keyBytes} bytes is none of '{text}'");
        }
        switch (vectors)
        {
            case "plain":
                return new CipherSpec(isXts, IvKind.Plain, default);
            case "plain64":
                return new CipherSpec(isXts, IvKind.Plain64, default);
            case "plain64be":
                return new CipherSpec(isXts, IvKind.Plain64BigEndian, default);
            default:
                if (vectors.StartsWith("essiv:", StringComparison.Ordinal)
                    && HashSpec.TryParse(vectors["essiv:".Length..], out HashSpec hash)
                    && hash.Size is 16 or 32)
                {
                    return new CipherSpec(isXts, IvKind.Essiv, hash);
                }
                throw Fault.Refused($"the initialization vectors of '{text}' are not supported (plain, plain64 and essiv are)");
        }
    }
}
