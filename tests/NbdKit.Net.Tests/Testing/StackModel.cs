namespace NbdKit.Tests.Testing;

/// <summary>
/// What the top of a stack of filters should look like, as a window into the bytes of the plugin at its bottom. Each
/// filter that is put on the stack changes the model in its own way.
/// </summary>
internal sealed class StackModel
{
    private readonly long _base;
    private readonly List<(long Start, long End)> _protected = [];

    /// <param name="content">The bytes of the plugin; a filter may still put a partition table there.</param>
    /// <param name="info">What the plugin says, before any gates.</param>
    /// <param name="start">Where the bytes begin: the plugin has nothing before.</param>
    public StackModel(byte[] content, NbdExportInfo info, long start)
    {
        Content = content;
        _base = start;
        Info = Gated(info with { Size = start + content.Length });
        RealSize = Info.Size;
    }

    /// <summary>All bytes of the plugin.</summary>
    public byte[] Content { get; }

    /// <summary>Where the window begins in the plugin.</summary>
    public long Start { get; private set; }

    /// <summary>What the top of the stack should say.</summary>
    public NbdExportInfo Info { get; private set; }

    public long Size => Info.Size;

    /// <summary>How many bytes of the window the plugin has: a filter may add zeroes, which take nothing else.</summary>
    public long RealSize { get; private set; }

    /// <summary>Nothing may be changed: what is written must be what is there.</summary>
    public bool IsFrozen { get; set; }

    /// <summary>Ranges of the window that cannot be read. Only of the top.</summary>
    public IReadOnlyList<(long Start, long End)> Bad { get; set; } = [];

    /// <summary>Whether some writes fail.</summary>
    public bool Refuses => IsFrozen || _protected.Count > 0 || RealSize < Size;

    /// <summary>Requests must be multiples of this.</summary>
    public long Unit => Math.Max(Info.BlockSize.Minimum, 1);

    /// <summary>A filter ignores FUA or flushes.</summary>
    public bool LosesData { get; set; }

    /// <summary>A filter keeps what was written from the plugin until a flush, or the end.</summary>
    public bool HoldsBack { get; set; }

    /// <summary>A filter makes every request durable.</summary>
    public bool ForcesData { get; set; }

    /// <summary>Whether every byte of the window exists.</summary>
    public bool IsBacked => Start >= _base && RealSize == Size;

    /// <summary>The bytes of a range of the window.</summary>
    public Span<byte> Bytes(long offset, long length) => Content.AsSpan((int)(Start + offset - _base), (int)length);

    /// <summary>The same range in the array of the plugin.</summary>
    public Range InPlugin(long offset, long length)
        => (int)(Start + offset - _base)..(int)(Start + offset + length - _base);

    /// <summary>The part of a range that the plugin has.</summary>
    public int Real(long offset, long length) => (int)Math.Clamp(RealSize - offset, 0, length);

    /// <summary>What a range of the window holds.</summary>
    public byte[] Expected(long offset, long length)
    {
        byte[] bytes = new byte[length];
        int real = Real(offset, length);
        if (real > 0)
        {
            Bytes(offset, real).CopyTo(bytes);
        }
        return bytes;
    }

    /// <summary>Makes a range of the window unchangeable, as far as the plugin has it.</summary>
    public void Protect(long offset, long length)
    {
        int real = Real(offset, length);
        if (real > 0)
        {
            long at = Start + offset - _base;
            _protected.Add((at, at + real));
        }
    }

    /// <summary>Whether the byte at a place in the array of the plugin may not be changed.</summary>
    public bool IsProtected(long place) => IsFrozen || _protected.Exists(range => range.Start <= place && place < range.End);

    /// <summary>The errors with which a write must fail, any of them; none if it must not.</summary>
    public List<NbdError> Refusals(long offset, ReadOnlySpan<byte> data)
    {
        var errors = new List<NbdError>();
        int real = Real(offset, data.Length);
        if (data[real..].ContainsAnyExcept((byte)0))
        {
            errors.Add(IsFrozen ? NbdError.IoError : NbdError.NoSpace);
        }
        if (IsFrozen || _protected.Count > 0)
        {
            long at = Start + offset - _base;
            for (int i = 0; i < real; i++)
            {
                if (Content[at + i] != data[i] && IsProtected(at + i))
                {
                    errors.Add(IsFrozen ? NbdError.IoError : NbdError.PermissionDenied);
                    break;
                }
            }
        }
        return errors;
    }

    /// <summary>Adds zeroes at the end.</summary>
    public void Grow(long size) => Info = Info with { Size = size };

    public void Narrow(long offset, long length)
    {
        RealSize = Math.Clamp(RealSize - offset, 0, length);
        Start += offset;
        Info = Info with { Size = length };
    }

    public void Change(Func<NbdExportInfo, NbdExportInfo> change) => Info = Gated(change(Info));

    private static NbdExportInfo Gated(NbdExportInfo info) => info.CanWrite
        ? info with { CanFastZero = info.CanZero != Support.None && info.CanFastZero, CanFua = info.CanFua }
        : info with { CanTrim = false, CanZero = Support.None, CanFastZero = false, CanFua = Support.None };
}
