namespace NbdKit.Tests.Testing;

/// <summary>
/// What the top of a stack of filters should look like, as a window into the bytes of the plugin at its bottom. Each
/// filter that is put on the stack changes the model in its own way.
/// </summary>
internal sealed class StackModel
{
    private readonly long _base;

    /// <param name="content">The bytes of the plugin; a filter may still put a partition table there.</param>
    /// <param name="info">What the plugin says, before any gates.</param>
    /// <param name="start">Where the bytes begin: the plugin has nothing before.</param>
    public StackModel(byte[] content, NbdExportInfo info, long start)
    {
        Content = content;
        _base = start;
        Info = Gated(info with { Size = start + content.Length });
    }

    /// <summary>All bytes of the plugin.</summary>
    public byte[] Content { get; }

    /// <summary>Where the window begins in the plugin.</summary>
    public long Start { get; private set; }

    /// <summary>What the top of the stack should say.</summary>
    public NbdExportInfo Info { get; private set; }

    public long Size => Info.Size;

    /// <summary>Requests must be multiples of this.</summary>
    public long Unit => Math.Max(Info.BlockSize.Minimum, 1);

    /// <summary>A filter ignores FUA or flushes.</summary>
    public bool LosesData { get; set; }

    /// <summary>A filter keeps what was written from the plugin until a flush, or the end.</summary>
    public bool HoldsBack { get; set; }

    /// <summary>A filter makes every request durable.</summary>
    public bool ForcesData { get; set; }

    /// <summary>Whether every byte of the window exists.</summary>
    public bool IsBacked => Start >= _base;

    /// <summary>The bytes of a range of the window.</summary>
    public Span<byte> Bytes(long offset, long length) => Content.AsSpan((int)(Start + offset - _base), (int)length);

    /// <summary>The same range in the array of the plugin.</summary>
    public Range InPlugin(long offset, long length)
        => (int)(Start + offset - _base)..(int)(Start + offset + length - _base);

    public void Narrow(long offset, long length)
    {
        Start += offset;
        Info = Info with { Size = length };
    }

    public void Change(Func<NbdExportInfo, NbdExportInfo> change) => Info = Gated(change(Info));

    private static NbdExportInfo Gated(NbdExportInfo info) => info.CanWrite
        ? info with { CanFastZero = info.CanZero != Support.None && info.CanFastZero, CanFua = info.CanFua }
        : info with { CanTrim = false, CanZero = Support.None, CanFastZero = false, CanFua = Support.None };
}
