namespace NbdKit.Plugins;

/// <summary>How <see cref="MemoryPlugin"/> keeps what was written.</summary>
public enum MemoryAllocator
{
    /// <summary>As it is, in pages of 32 KiB (<c>sparse</c>).</summary>
    Sparse,

    /// <summary>
    /// Compressed, in pages of 32 KiB of which the last ones used stay uncompressed (nbdkit's <c>zstd</c>; here it is Brotli at its
    /// quickest, which no client can tell). Takes less memory and more time.
    /// </summary>
    Compressing,
}
