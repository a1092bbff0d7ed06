using NbdKit.Filters;
using NbdKit.Plugins;

namespace NbdKit.Tests.Faults;

/// <summary>One kind of stack, as it is drawn for a history and as it is built each time that it is run or reopened.</summary>
internal sealed class PowerCutStack
{
    private readonly long? _cacheSize;
    private readonly bool _keepsReads;
    private readonly bool _readsFirst;

    private PowerCutStack()
    {
    }

    public PowerCutStack(Random random)
    {
        Kind = (PowerCutStackKind)random.Next((int)PowerCutStackKind.WriteBackOverMirror + 1);
        Disk = random.Next(2) == 0 ? PowerCutDiskKind.Full : (PowerCutDiskKind)random.Next((int)PowerCutDiskKind.TakesNoFlush + 1);
        _cacheSize = random.Next(3) == 0 ? null : 4096 * random.Next(2, 9);
        _keepsReads = random.Next(2) == 0;
        _readsFirst = random.Next(2) == 0;
    }

    /// <summary>A disk alone.</summary>
    public static PowerCutStack Plain { get; } = new();

    public PowerCutStackKind Kind { get; }

    public PowerCutDiskKind Disk { get; }

    public int Members => Kind is PowerCutStackKind.Mirror or PowerCutStackKind.WriteBackOverMirror ? 2 : 1;

    /// <summary>Whether a flush or FUA that the stack acknowledges makes anything durable.</summary>
    public bool KeepsPromises => Kind is not (PowerCutStackKind.UnsafeCache or PowerCutStackKind.Cow);

    /// <summary>A disk that loses power, over what is on stable storage.</summary>
    public PowercutPlugin NewDisk(byte[] stable) => new()
    {
        Chain = NbdBackend.Compose(new PowerCutMemory(stable)),
        IsMultiConn = Disk != PowerCutDiskKind.FlushesEachConnection,
    };

    /// <summary>Builds the stack.</summary>
    /// <param name="disks">Its disks, as many as it has members.</param>
    /// <param name="inner">What is put on each disk, made anew for each, or null.</param>
    public NbdBackend Build(IReadOnlyList<INbdPlugin> disks, Func<INbdFilter>? inner)
    {
        INbdFilter[] Inner() => inner is null ? [] : [inner()];
        return Kind switch
        {
            PowerCutStackKind.Mirror => NbdBackend.Compose(NewMirror(disks, Inner)),
            PowerCutStackKind.WriteBackOverMirror => NbdBackend.Compose(NewMirror(disks, Inner), NewCache(CacheMode.WriteBack)),
            PowerCutStackKind.Cow => NbdBackend.Compose(
                disks[0], [new CowFilter { Store = CowStore.Memory, BlockSize = 4096, OnRead = _keepsReads }, .. Inner()]),
            PowerCutStackKind.WriteBack => NbdBackend.Compose(disks[0], [NewCache(CacheMode.WriteBack), .. Inner()]),
            PowerCutStackKind.WriteThrough => NbdBackend.Compose(disks[0], [NewCache(CacheMode.WriteThrough), .. Inner()]),
            PowerCutStackKind.UnsafeCache => NbdBackend.Compose(disks[0], [NewCache(CacheMode.Unsafe), .. Inner()]),
            _ => NbdBackend.Compose(disks[0], Inner()),
        };
    }

    public override string ToString()
        => $"{Kind} over {Disk}, cache of {_cacheSize?.ToString() ?? "any"} bytes{(_keepsReads ? " that keeps reads" : "")}";

    private MirrorPlugin NewMirror(IReadOnlyList<INbdPlugin> disks, Func<INbdFilter[]> inner) => new()
    {
        Chains = [.. disks.Select(disk => NbdBackend.Compose(disk, inner()))],
        ReadPolicy = _readsFirst ? MirrorReadPolicy.First : MirrorReadPolicy.RoundRobin,
    };

    private CacheFilter NewCache(CacheMode mode) => new()
    {
        Mode = mode,
        MinBlockSize = 4096,
        MaxSize = _cacheSize,
        OnRead = _keepsReads,
        Store = CacheStore.Memory,
    };
}
