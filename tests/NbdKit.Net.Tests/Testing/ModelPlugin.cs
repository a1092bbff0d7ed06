namespace NbdKit.Tests.Testing;

/// <summary>
/// A disk in memory for tests of layers. It has whatever capabilities its info says, keeps apart what was written and
/// what is on stable storage, writes down each call, and takes offence at requests that its info forbids.
/// </summary>
internal sealed class ModelPlugin : INbdPlugin, INbdPluginHandle
{
    private readonly Lock _lock = new();
    private readonly List<string> _calls = [];
    private readonly Random? _random;

    /// <param name="content">What the disk holds; copied.</param>
    /// <param name="info">What it can do; the size is set here. By default everything, natively.</param>
    /// <param name="random">Decides what a plugin is free to decide; null for the same each time.</param>
    public ModelPlugin(byte[] content, NbdExportInfo? info = null, Random? random = null)
    {
        Data = [.. content];
        Stable = [.. content];
        Info = info ?? Everything;
        _random = random;
    }

    public static NbdExportInfo Everything { get; } = new()
    {
        Size = 0,
        CanWrite = true,
        CanFlush = true,
        CanTrim = true,
        CanZero = Support.Native,
        CanFastZero = true,
        CanFua = Support.Native,
        CanCache = Support.Native,
        CanExtents = true,
        CanMultiConn = true,
    };

    public string Name => "model";

    public ThreadModel ThreadModel { get; init; } = ThreadModel.Parallel;

    public NbdExportInfo Info { get; }

    /// <summary>The offset of the first byte that exists; everything before is out of bounds.</summary>
    public long Base { get; init; }

    /// <summary>What reads see.</summary>
    public byte[] Data { get; }

    /// <summary>What would survive a crash.</summary>
    public byte[] Stable { get; }

    /// <summary>Zeroes are declined with ENOTSUP.</summary>
    public bool DeclinesZero { get; init; }

    /// <summary>Calls complete later, on another thread.</summary>
    public bool Yields { get; init; }

    /// <summary>Runs before each call takes effect, with its description.</summary>
    public Func<string, Task>? Before { get; set; }

    /// <summary>How each context was opened.</summary>
    public List<(string ExportName, bool ReadOnly)> Opens { get; } = [];

    /// <summary>The first request that broke a promise, or null.</summary>
    public string? Offence { get; private set; }

    public bool RecordsCalls { get; init; } = true;

    public string[] TakeCalls()
    {
        lock (_lock)
        {
            string[] calls = [.. _calls];
            _calls.Clear();
            return calls;
        }
    }

    public ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken)
    {
        Opens.Add((context.ExportName, context.ReadOnly));
        return new(this);
    }

    public ValueTask<NbdExportInfo> GetInfoAsync(CancellationToken cancellationToken)
        => new(Info with { Size = Base + Data.Length });

    public async ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        await EnterAsync("read", offset, buffer.Length, RequestFlags.None, data: true);
        lock (_lock)
        {
            Range(Data, offset, buffer.Length).CopyTo(buffer.Span);
        }
    }

    public async ValueTask WriteAsync(
        ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
    {
        await EnterAsync("write", offset, data.Length, flags, data: true);
        Require(Info.CanWrite, "write");
        lock (_lock)
        {
            data.Span.CopyTo(Range(Data, offset, data.Length));
        }
        Sync(offset, data.Length, flags);
    }

    public async ValueTask FlushAsync(CancellationToken cancellationToken)
    {
        await EnterAsync("flush", 0, 0, RequestFlags.None, data: false);
        Require(Info.CanFlush || Info.CanFua == Support.Emulate, "flush");
        lock (_lock)
        {
            Data.CopyTo(Stable, 0);
        }
    }

    public async ValueTask TrimAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        await EnterAsync("trim", offset, length, flags, data: false);
        Require(Info.CanTrim, "trim");
        lock (_lock)
        {
            // What a trimmed range holds is nobody's business, so let it be garbage now and then.
            Range(Data, offset, length).Fill(Chance(3) ? (byte)0xDB : (byte)0);
        }
        Sync(offset, length, flags);
    }

    public async ValueTask ZeroAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        await EnterAsync("zero", offset, length, flags, data: false);
        Require(Info.CanZero == Support.Native, "zero");
        Require(Info.CanFastZero || (flags & RequestFlags.FastZero) == 0, "fast zero");
        if (DeclinesZero || Chance(4))
        {
            throw new NbdException(NbdError.NotSupported, "not today");
        }
        lock (_lock)
        {
            Range(Data, offset, length).Clear();
        }
        Sync(offset, length, flags);
    }

    public async ValueTask CacheAsync(long offset, long length, CancellationToken cancellationToken)
    {
        await EnterAsync("cache", offset, length, RequestFlags.None, data: false);
        Require(Info.CanCache == Support.Native, "cache");
    }

    public async ValueTask ReadSparseAsync(
        Memory<byte> buffer, long offset, ExtentList extents, CancellationToken cancellationToken)
    {
        await ReadAsync(buffer, offset, cancellationToken);
        Require(Info.CanReadSparse == Support.Native, "sparse read");
        for (int at = 0; at < buffer.Length && !Chance(20);)
        {
            int length = Math.Min(buffer.Length - at, 700);
            Span<byte> part = buffer.Span.Slice(at, length);
            bool isHole = !part.ContainsAnyExcept((byte)0);
            extents.Add(offset + at, length, isHole ? ExtentStatus.Hole | ExtentStatus.Zero : ExtentStatus.Data);
            if (isHole)
            {
                part.Fill(0xA5);
            }
            at += length;
        }
    }

    public async ValueTask ExtentsAsync(
        long offset, long length, RequestFlags flags, ExtentList extents, CancellationToken cancellationToken)
    {
        await EnterAsync("extents", offset, length, flags, data: false);
        Require(Info.CanExtents, "extents");
        long granule = Math.Max(512, Info.BlockSize.Minimum);
        lock (_lock)
        {
            // Starts before what was asked for, stops early or goes on beyond it: all of that is allowed.
            long end = Base + Data.Length;
            long at = Base + ((offset - Base) / granule * granule);
            while (at < end && !(at >= offset + length && !Chance(2)) && !(at > offset && Chance(40)))
            {
                long count = Math.Min(granule, end - at);
                bool isZero = !Range(Data, at, count).ContainsAnyExcept((byte)0);
                extents.Add(at, count, !isZero ? ExtentStatus.Data
                    : at / granule % 7 < 3 ? ExtentStatus.Zero : ExtentStatus.Zero | ExtentStatus.Hole);
                at += count;
            }
        }
    }

    private async ValueTask EnterAsync(string operation, long offset, long length, RequestFlags flags, bool data)
    {
        if (RecordsCalls)
        {
            lock (_lock)
            {
                _calls.Add(Describe(operation, offset, length, flags));
            }
        }
        if (Yields && (_random is null || Chance(2)))
        {
            await Task.Yield();
        }
        if (Before is not null)
        {
            await Before(Describe(operation, offset, length, flags));
        }
        if (operation == "flush")
        {
            return;
        }
        long end = Base + Data.Length;
        long minimum = Math.Max(Info.BlockSize.Minimum, 1);
        bool inside = offset >= Base && length > 0 && length <= end - offset;
        bool aligned = offset % minimum == 0 && (length % minimum == 0 || offset + length == end);
        bool fits = !data || Info.BlockSize.Maximum == 0 || length <= Info.BlockSize.Maximum;
        bool flagged = (flags & RequestFlags.Fua) == 0 || Info.CanFua == Support.Native;
        if (!inside || !aligned || !fits || !flagged)
        {
            Refuse(Describe(operation, offset, length, flags));
        }
    }

    private static string Describe(string operation, long offset, long length, RequestFlags flags)
        => operation == "flush" ? operation
            : $"{operation} {offset}+{length}{(flags == RequestFlags.None ? "" : " " + flags)}";

    private void Require(bool allowed, string operation)
    {
        if (!allowed)
        {
            Refuse(operation);
        }
    }

    private void Refuse(string call)
    {
        Offence ??= call;
        throw new NbdException(NbdError.InvalidArgument, $"the plugin was asked to {call}");
    }

    private void Sync(long offset, long length, RequestFlags flags)
    {
        if ((flags & RequestFlags.Fua) != 0)
        {
            lock (_lock)
            {
                Range(Data, offset, length).CopyTo(Range(Stable, offset, length));
            }
        }
    }

    private Span<byte> Range(byte[] bytes, long offset, long length) => bytes.AsSpan((int)(offset - Base), (int)length);

    private bool Chance(int oneIn)
    {
        if (_random is null)
        {
            return false;
        }
        lock (_lock)
        {
            return _random.Next(oneIn) == 0;
        }
    }
}
