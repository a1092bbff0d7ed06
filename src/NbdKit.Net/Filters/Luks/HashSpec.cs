using System.Security.Cryptography;

namespace NbdKit.Filters.Luks;

/// <summary>A hash function, as headers name it.</summary>
/// <param name="Algorithm">The framework's name.</param>
/// <param name="Size">Bytes in a digest.</param>
internal readonly record struct HashSpec(HashAlgorithmName Algorithm, int Size)
{
    public static bool TryParse(string name, out HashSpec hash)
    {
        hash = name.ToLowerInvariant() switch
        {
            "md5" => new(HashAlgorithmName.MD5, 16),
            "sha1" => new(HashAlgorithmName.SHA1, 20),
            "sha256" => new(HashAlgorithmName.SHA256, 32),
            "sha384" => new(HashAlgorithmName.SHA384, 48),
            "sha512" => new(HashAlgorithmName.SHA512, 64),
            _ => default,
        };
        return hash.Size > 0;
    }

    /// <summary>As above, for what cannot do without it.</summary>
    public static HashSpec Parse(string name)
        => TryParse(name, out HashSpec hash) ? hash : throw Fault.Refused($"the hash '{name}' is not supported");
}
