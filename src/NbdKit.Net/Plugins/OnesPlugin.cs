namespace NbdKit.Plugins;

/// <summary>
/// A disk on which every byte is the same, by default 0xff (nbdkit-ones-plugin(1)). Good for measuring programs that would
/// treat zeroes specially.
/// </summary>
/// <remarks>
/// It takes everything and changes nothing, as <see cref="NullPlugin"/>: writes, trims and zeroes succeed and are forgotten, so
/// it does not read as zeroes after a zero. All is data.
/// </remarks>
public sealed class OnesPlugin : INbdPlugin, INbdPluginHandle
{
    /// <summary>The plugin in the catalogue: <c>ones</c>, with the magic parameter <c>size</c>.</summary>
    public static NbdPluginEntry Entry { get; } = new(
        "ones",
        "a disk that drops writes and reads as one byte over and over",
        [
            new NbdParameter("size", "size of the disk") { IsRequired = true },
            new NbdParameter("byte", "the byte, from 0 to 255 (0xff)"),
        ],
        parameters => new OnesPlugin
        {
            Size = parameters.Size("size") ?? throw new ArgumentException("ones: the parameter size= is required."),
            Byte = parameters.Integer("byte") switch
            {
                null => 0xff,
                int value and <= 0xff => (byte)value,
                int value => throw new ArgumentException($"ones: byte={value} is not between 0 and 255."),
            },
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

    /// <summary>What every byte is.</summary>
    /// <value>0xff by default.</value>
    public byte Byte { get; init; } = 0xff;

    /// <inheritdoc/>
    public string Name => "ones";

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
        CanFastZero = true,
        CanFua = Support.Native,
        CanCache = Support.Native,
        CanMultiConn = true,
    });

    /// <inheritdoc/>
    public ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        buffer.Span.Fill(Byte);
        return default;
    }

    /// <inheritdoc/>
    public ValueTask WriteAsync(
        ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken) => default;

    /// <inheritdoc/>
    public ValueTask FlushAsync(CancellationToken cancellationToken) => default;

    /// <inheritdoc/>
    public ValueTask TrimAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => default;

    /// <inheritdoc/>
    public ValueTask ZeroAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => default;
}
