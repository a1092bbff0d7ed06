using System.Buffers;
using System.Globalization;
using System.Numerics;
using System.Runtime.CompilerServices;

namespace NbdKit.Filters;

/// <summary>
/// Combines every byte with a key by exclusive or, when it is read and when it is written (nbdkit-xor-filter(1)). This hides data
/// from a casual look and from programs that search disks for known content; it is no encryption.
/// </summary>
/// <remarks>
/// Zeroes and trims are written, so that they read as zeroes; what the layer below says about its extents is hidden, as its zeroes
/// are something else here.
/// </remarks>
public sealed class XorFilter : INbdFilter, INbdFilterHandle
{
    private const int LongestKey = 8;

    // A multiple of every length that a key may have; and room for any start in a key.
    private const int PatternSize = 840 * 79;

    private readonly byte[] _pattern = new byte[PatternSize + LongestKey];
    private readonly int _length = 1;

    /// <summary>The filter in the catalogue.</summary>
    public static NbdFilterEntry Entry { get; } = new(
        "xor",
        "combine every byte with a key, so that content is not recognised; no encryption",
        [
            new NbdParameter("xor", "the key as a number, or rand[:SEED] for one made at random") { IsRequired = true },
            new NbdParameter("xorlen", "bytes of the key, 1 to 8, most significant first (default: as many as it needs, 8 for rand)"),
        ],
        parameters => new XorFilter { Key = KeyOf(parameters.Required("xor"), parameters.Integer("xorlen")) });

    /// <summary>The key; its first byte belongs to the first byte of the disk.</summary>
    /// <value>From 1 to 8 bytes, which are copied.</value>
    /// <exception cref="ArgumentOutOfRangeException">It is longer or empty.</exception>
    public required ReadOnlyMemory<byte> Key
    {
        get => _pattern.AsMemory(0, _length);
        init
        {
            if (value.Length is < 1 or > LongestKey)
            {
                throw new ArgumentOutOfRangeException(nameof(Key), value.Length, "A key has 1 to 8 bytes.");
            }
            _length = value.Length;
            for (int i = 0; i < _pattern.Length; i++)
            {
                _pattern[i] = value.Span[i % _length];
            }
        }
    }

    /// <inheritdoc/>
    public string Name => "xor";

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        await context.OpenNextAsync(cancellationToken).ConfigureAwait(false);
        return this;
    }

    /// <inheritdoc/>
    public ValueTask<NbdExportInfo> GetInfoAsync(NextContext next, CancellationToken cancellationToken)
        => new(next.Info with
        {
            CanTrim = next.Info.CanWrite,
            CanZero = Support.Emulate,
            CanFastZero = true,
            CanExtents = false,
            CanReadSparse = Support.None,
            MetaContexts = [ExtentList.BaseAllocation],
            WideMetaContexts = [],
        });

    /// <inheritdoc/>
    public ValueTask ReadAsync(NextContext next, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        ValueTask reading = next.ReadAsync(buffer, offset, cancellationToken);
        if (!reading.IsCompletedSuccessfully)
        {
            return CombineAfterAsync(reading, buffer, offset);
        }
        reading.GetAwaiter().GetResult();
        Combine(buffer.Span, offset, buffer.Span);
        return default;
    }

    /// <inheritdoc/>
    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    public async ValueTask WriteAsync(
        NextContext next, ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
    {
        // The caller's data may not be changed.
        byte[] copy = ArrayPool<byte>.Shared.Rent(data.Length);
        try
        {
            Combine(data.Span, offset, copy);
            await next.WriteAsync(copy.AsMemory(0, data.Length), offset, flags, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(copy);
        }
    }

    /// <inheritdoc/>
    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    public async ValueTask TrimAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        long minimum = Math.Max(1, next.Info.BlockSize.Minimum);
        long most = Math.Min(PatternSize, next.Info.BlockSize.IsKnown ? next.Info.BlockSize.Maximum : PatternSize);
        most = Math.Max(minimum, most / minimum * minimum);
        while (length > 0)
        {
            int count = (int)Math.Min(length, most);
            await next.WriteAsync(_pattern.AsMemory((int)(offset % _length), count), offset, flags, cancellationToken)
                .ConfigureAwait(false);
            offset += count;
            length -= count;
        }
    }

    bool INbdFilterHandle.KeepsNext => true;

    private static byte[] KeyOf(string text, int? length)
    {
        if (length is < 1 or > LongestKey)
        {
            throw new ArgumentException($"xor: xorlen={length}: a key has 1 to 8 bytes.");
        }
        if (text == "rand" || text.StartsWith("rand:", StringComparison.Ordinal))
        {
            Random random = text == "rand" ? Random.Shared : new Random(Parse(text, () => (int)NbdParse.Integer(text[5..], 0, int.MaxValue)));
            byte[] made = new byte[length ?? LongestKey];
            random.NextBytes(made);
            return made;
        }
        // Eight bytes in hexadecimal may be more than a signed number holds.
        ulong value = text.StartsWith("0x", StringComparison.OrdinalIgnoreCase)
            && ulong.TryParse(text.AsSpan(2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out ulong hex)
            ? hex
            : (ulong)Parse(text, () => NbdParse.Integer(text, 0));
        int needed = Math.Max(1, (64 - BitOperations.LeadingZeroCount(value) + 7) / 8);
        if (needed > (length ?? needed))
        {
            throw new ArgumentException($"xor: xor={text} does not fit into xorlen={length} bytes.");
        }
        byte[] key = new byte[length ?? needed];
        for (int i = key.Length - 1; i >= 0; i--, value >>= 8)
        {
            key[i] = (byte)value;
        }
        return key;
    }

    private static T Parse<T>(string text, Func<T> parse)
    {
        try
        {
            return parse();
        }
        catch (FormatException e)
        {
            throw new ArgumentException($"xor: xor={text}: {e.Message}", e);
        }
    }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    private async ValueTask CombineAfterAsync(ValueTask reading, Memory<byte> buffer, long offset)
    {
        await reading.ConfigureAwait(false);
        Combine(buffer.Span, offset, buffer.Span);
    }

    private void Combine(ReadOnlySpan<byte> from, long offset, Span<byte> to)
    {
        // Every piece begins at the same place in the key, as the pattern is a multiple of its length.
        ReadOnlySpan<byte> pattern = _pattern.AsSpan((int)(offset % _length), PatternSize);
        for (; from.Length > PatternSize; from = from[PatternSize..], to = to[PatternSize..])
        {
            CombineOnce(from[..PatternSize], pattern, to);
        }
        CombineOnce(from, pattern, to);
    }

    private static void CombineOnce(ReadOnlySpan<byte> from, ReadOnlySpan<byte> pattern, Span<byte> to)
    {
        int at = 0;
        for (; at <= from.Length - Vector<byte>.Count; at += Vector<byte>.Count)
        {
            (new Vector<byte>(from[at..]) ^ new Vector<byte>(pattern[at..])).CopyTo(to[at..]);
        }
        for (; at < from.Length; at++)
        {
            to[at] = (byte)(from[at] ^ pattern[at]);
        }
    }
}
