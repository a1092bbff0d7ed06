namespace NbdKit.Faults.Mutation;

/// <summary>Exports of all kinds that hold a pattern, whatever is written to them.</summary>
internal sealed class MutantPlugin : INbdPlugin
{
    public const string Context = "x-test:second";

    private readonly List<(ulong From, ulong To)> _zeroes = [];
    private int _open;

    public string Name => "mutant";

    public ThreadModel ThreadModel => ThreadModel.Parallel;

    /// <summary>The contexts that are open.</summary>
    public int Open => Volatile.Read(ref _open);

    /// <summary>What a call broke that the server must keep; null if none did.</summary>
    public string? Broken { get; set; }

    /// <summary>Reports extents; all data if null.</summary>
    public Action<long, long, ExtentList>? Extents { get; set; }

    /// <summary>
    /// The byte at a position of every export, but where a sparse read was told of zeroes: what a plugin says of its content is
    /// what its content is.
    /// </summary>
    public static byte At(ulong offset) => (byte)((offset * 7) ^ (offset >> 9) ^ 0x5a);

    public ValueTask ListExportsAsync(
        ExportList exports, bool readOnly, NbdConnection? connection, CancellationToken cancellationToken)
    {
        exports.Add("", "the first");
        exports.Add("odd", "an odd size");
        exports.Add("huge");
        return default;
    }

    public ValueTask<string?> DefaultExportAsync(bool readOnly, NbdConnection? connection, CancellationToken cancellationToken) => new("");

    public ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken)
    {
        var all = new NbdExportInfo
        {
            Size = 64 << 10,
            Description = "a disk",
            CanWrite = true,
            CanFlush = true,
            CanTrim = true,
            CanZero = Support.Native,
            CanFastZero = true,
            CanFua = Support.Native,
            CanCache = Support.Native,
            CanExtents = true,
            CanReadSparse = Support.Native,
            MetaContexts = [ExtentList.BaseAllocation, Context],
        };
        NbdExportInfo info = context.ExportName switch
        {
            "" => all,
            "odd" => all with
            {
                Size = 1_000_003,
                BlockSize = new BlockSize(512, 4096, 1 << 20),
                CanFlush = false,
                CanTrim = false,
                CanFastZero = false,
                CanZero = Support.Emulate,
                CanFua = Support.Emulate,
                CanCache = Support.Emulate,
                CanReadSparse = Support.None,
            },
            "huge" => all with { Size = long.MaxValue },
            MutantHandle.Late => all,
            MutantHandle.Sick => all with { CanReadSparse = Support.Emulate },
            _ => throw new NbdException(NbdError.InvalidArgument, $"there is no export '{context.ExportName}'"),
        };
        Interlocked.Increment(ref _open);
        return new(new MutantHandle(this, info, context.ExportName));
    }

    /// <summary>A read was told that part of it is zero.</summary>
    public void AddZeroes(long offset, long length)
    {
        lock (_zeroes)
        {
            _zeroes.Add(((ulong)offset, (ulong)(offset + length)));
        }
    }

    /// <summary>Whether reads were told that all of a range is zero.</summary>
    public bool IsZero(ulong offset, ulong length)
    {
        ulong end = offset + length;
        while (offset < end)
        {
            ulong reached = offset;
            foreach ((ulong from, ulong to) in _zeroes)
            {
                reached = from <= offset && to > reached ? to : reached;
            }
            if (reached == offset)
            {
                return false;
            }
            offset = reached;
        }
        return true;
    }

    /// <summary>A context was closed.</summary>
    public void Close() => Interlocked.Decrement(ref _open);

    /// <summary>Nothing that happened before counts.</summary>
    public void Reset()
    {
        _open = 0;
        _zeroes.Clear();
        Broken = null;
    }
}
