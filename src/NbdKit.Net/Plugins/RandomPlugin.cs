using System.Buffers;

namespace NbdKit.Plugins;

/// <summary>
/// A disk of random bytes that are the same for the same seed, and that takes no space (nbdkit-random-plugin(1)). A write must
/// be what the disk holds already, else it fails with EIO: it checks copies of itself.
/// </summary>
/// <remarks>
/// Each byte is made from the seed and its offset, in the way of nbdkit, so both make the same disk of one seed. Trims and
/// zeroes always fail with EIO. The bytes are good enough for tests and not for secrets.
/// </remarks>
public sealed class RandomPlugin : INbdPlugin, INbdPluginHandle
{
    // A request is compared piece by piece, so that large ones take no memory of their size.
    private const int PieceSize = 16 << 10;

    /// <summary>The plugin in the catalogue: <c>random</c>, with the magic parameter <c>size</c>.</summary>
    public static NbdPluginEntry Entry { get; } = new(
        "random",
        "a disk of random bytes, which checks that copies of it are right",
        [
            new NbdParameter("size", "size of the disk") { IsRequired = true },
            new NbdParameter("seed", "number from 0 to 2^32-1 that the bytes are made from (another one each time)"),
        ],
        parameters => new RandomPlugin
        {
            Size = parameters.Size("size") ?? throw new ArgumentException("random: the parameter size= is required."),
            Seed = SeedOf(parameters, "random"),
        })
    {
        MagicParameter = "size",
    };

    /// <summary>Size of the disk in bytes, from 0 to 2^63-1.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative.</exception>
    public required long Size
    {
        get;
        init
        {
            ArgumentOutOfRangeException.ThrowIfNegative(value);
            field = value;
        }
    }

    /// <summary>What the bytes are made from: the same seed makes the same disk.</summary>
    /// <value>By default another one for each plugin.</value>
    public uint Seed { get; init; } = NewSeed();

    /// <inheritdoc/>
    public string Name => "random";

    /// <inheritdoc/>
    public ThreadModel ThreadModel => ThreadModel.Parallel;

    /// <inheritdoc/>
    public ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken)
        => new(this);

    /// <inheritdoc/>
    public ValueTask<NbdExportInfo> GetInfoAsync(CancellationToken cancellationToken) => new(new NbdExportInfo
    {
        Size = Size,
        CanWrite = true,
        CanFlush = true,
        CanTrim = true,
        CanZero = Support.Native,
        CanFua = Support.Native,
        CanCache = Support.Native,
        CanMultiConn = true,
    });

    /// <inheritdoc/>
    public ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        if (buffer.Length > RandomBytes.MostInline)
        {
            return ElsewhereAsync();
        }
        Fill(buffer.Span, offset);
        return default;

        async ValueTask ElsewhereAsync()
        {
            await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
            Fill(buffer.Span, offset);
        }
    }

    /// <inheritdoc/>
    public ValueTask WriteAsync(
        ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
    {
        if (data.Length > RandomBytes.MostInline)
        {
            return ElsewhereAsync();
        }
        Check(data.Span, offset);
        return default;

        async ValueTask ElsewhereAsync()
        {
            await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
            Check(data.Span, offset);
        }
    }

    /// <inheritdoc/>
    public ValueTask FlushAsync(CancellationToken cancellationToken) => default;

    /// <inheritdoc/>
    public ValueTask TrimAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => throw NotZero();

    /// <inheritdoc/>
    public ValueTask ZeroAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => throw NotZero();

    /// <summary>A seed that is likely to be new.</summary>
    internal static uint NewSeed() => (uint)Random.Shared.NextInt64(1L << 32);

    /// <summary>The parameter <c>seed</c>, or a new one.</summary>
    internal static uint SeedOf(NbdParameters parameters, string owner)
    {
        if (parameters.Text("seed") is not { } text)
        {
            return NewSeed();
        }
        try
        {
            return (uint)NbdParse.Integer(text, 0, uint.MaxValue);
        }
        catch (FormatException e)
        {
            throw new ArgumentException($"{owner}: seed={text}: {e.Message}", e);
        }
    }

    private static NbdException NotZero() => new(NbdError.IoError, "a disk of random bytes cannot be trimmed or zeroed");

    private void Check(ReadOnlySpan<byte> data, long offset)
    {
        byte[] due = ArrayPool<byte>.Shared.Rent(PieceSize);
        try
        {
            for (int at = 0; at < data.Length; at += PieceSize)
            {
                Span<byte> piece = due.AsSpan(0, Math.Min(PieceSize, data.Length - at));
                Fill(piece, offset + at);
                if (!piece.SequenceEqual(data.Slice(at, piece.Length)))
                {
                    throw new NbdException(NbdError.IoError, "the data written is not what the disk holds");
                }
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(due);
        }
    }

    private void Fill(Span<byte> buffer, long offset) => RandomBytes.FillEach(buffer, Seed + (ulong)offset);
}
