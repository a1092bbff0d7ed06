using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

/// <summary>The filters that random stacks are made of. A new filter gets a line here and a method below.</summary>
internal static partial class StackGenerators
{
    public static IReadOnlyList<StackGenerator> All { get; } =
    [
        new("blocksize", BlockSize),
        new("blocksize-policy", BlockSizePolicy),
        new("cache", Cache),
        new("count", Count),
        new("evil", (_, random) => new EvilFilter { Mode = (EvilMode)random.Next(3), Probability = 0 }),
        new("exitlast", (_, _) => new ExitlastFilter()),
        new("exitwhen", Exitwhen),
        new("exportname", Exportname),
        new("ext2", Ext2),
        new("extentlist", Extentlist),
        new("forward-only", ForwardOnly),
        new("fua", Fua),
        new("gzip", Gzip),
        new("limit", (_, random) => new LimitFilter { Limit = random.Next(3) }),
        new("luks", Luks),
        new("map", Map),
        new("multi-conn", MultiConn),
        new("nocache", Nocache),
        new("noextents", Noextents),
        new("nofilter", (_, _) => new NofilterFilter()),
        new("noparallel", (_, random) => new NoparallelFilter { Serialize = (ThreadModel)random.Next(4) }),
        new("nozero", Nozero),
        new("offset", Offset),
        new("openonce", Openonce),
        new("partition", Partition),
        new("pause", (_, random) => new PauseFilter { FlushesWhenQuiet = random.Next(2) == 0 }),
        new("policy", Policy),
        new("protect", Protect),
        new("qcow2dec", Qcow2),
        new("quota", Quota),
        new("rate", Rate),
        new("readahead", (_, random) => new ReadaheadFilter { MaxWindow = random.Next(32_768, 100_000) }),
        new("readonly", Readonly),
        new("retry-request", RetryRequest),
        new("rotational", Rotational),
        new("spinning", Spinning),
        new("stats", Stats),
        new("swab", Swab),
        new("tar", Tar),
        new("time-limit", (_, random) => new TimeLimitFilter { Idle = TimeSpan.FromSeconds(random.Next(2)) }),
        new("truncate", Truncate),
        new("xor", Xor),
    ];

    /// <summary>Puts a window on the part of a plugin that exists.</summary>
    public static INbdFilter ToBackedPart(StackModel model, long start)
    {
        model.Narrow(start, model.Size - start);
        return new OffsetFilter { Offset = start };
    }

    private static OffsetFilter? Offset(StackModel model, Random random)
    {
        if (!model.IsBacked)
        {
            return null;
        }
        long units = model.Size / model.Unit;
        // Mostly a little is cut off, so that something is left for the filters above.
        long offset = Math.Min(units, random.Next(4) == 0 ? random.NextInt64(units + 1) : random.NextInt64(8)) * model.Unit;
        long left = model.Size - offset;
        long? range = random.Next(3) switch
        {
            0 => null,
            1 => left / model.Unit * model.Unit,
            _ => (left - random.NextInt64((left / 2) + 1)) / model.Unit * model.Unit,
        };
        model.Narrow(offset, range ?? left);
        return new OffsetFilter { Offset = offset, Range = range };
    }

    private static Ext2Filter? Ext2(StackModel model, Random random)
    {
        int blockSize = 1024 << random.Next(3);
        int start = Ext2Layout.Overhead(blockSize);
        long blocks = model.Size / blockSize;
        if (!model.IsBacked || (blocks * blockSize) - start < blockSize)
        {
            return null;
        }
        int room = (int)(blocks * blockSize) - start;
        int size = random.Next(2) == 0 ? room : random.Next(room * 3 / 4, room) + 1;
        Ext2Layout.Write(model.Bytes(0, model.Size), blockSize, size, random.Next(1, 5));
        model.Narrow(start, size);
        string? below = model.Info.Description;
        model.Change(info => info with
        {
            Description = $"file /f of a file system{(below is null ? "" : ": " + below)}",
            CanZero = info.CanZero == Support.None ? Support.None : Support.Native,
            CanExtents = true,
            CanMultiConn = true,
        });
        return new Ext2Filter { File = "/f" };
    }

    private static PartitionFilter? Partition(StackModel model, Random random)
    {
        int sector = model.Unit == 4096 || random.Next(4) == 0 ? 4096 : 512;
        long step = Math.Max(model.Unit, sector) / sector;
        long sectors = model.Size / sector;
        long first = (24 + step - 1) / step * step;
        if (!model.IsBacked || model.Unit > 4096 || sectors < first + step + 8)
        {
            return null;
        }
        long count = (sectors - 8 - first) / step * step;
        Span<byte> disk = model.Bytes(0, sectors * sector);
        int number = random.Next(1, 5);
        switch (random.Next(3))
        {
            case 0:
                var partitions = new (ulong, ulong)[number];
                partitions[^1] = ((ulong)first, (ulong)(first + count - 1));
                disk[..(8 * sector)].Clear();
                PartitionImage.WriteGpt(disk, sector, partitions, count: random.Next(number, 17));
                break;
            case 1:
                var entries = new (byte, uint, uint)[4];
                entries[number - 1] = (0x83, (uint)first, (uint)count);
                disk[..(2 * sector)].Clear();
                PartitionImage.WriteRecord(disk, entries);
                break;
            default:
                disk[..(4 * sector)].Clear();
                PartitionImage.WriteRecord(disk, (0, 0, 0), (0x0F, 2, (uint)(first + count)));
                PartitionImage.WriteRecord(disk[(2 * sector)..], (0x83, 1, 1), (0x05, 1, 1));
                PartitionImage.WriteRecord(disk[(3 * sector)..], (0x83, (uint)first - 3, (uint)count), default);
                number = 6;
                break;
        }
        model.Narrow(first * sector, count * sector);
        string kind = disk[450] == 0xEE ? "GPT" : "MBR";
        string? below = model.Info.Description;
        model.Change(info => info with
        {
            Description = $"partition {number} of {kind} disk{(below is null ? "" : ": " + below)}",
        });
        return new PartitionFilter { Partition = number, SectorSize = sector };
    }

    private static BlockSizeFilter? BlockSize(StackModel model, Random random)
    {
        long? minBlock = random.Next(4) switch { 0 => 512, 1 => 4096, 2 => 1L << random.Next(13), _ => null };
        long block = Math.Max(minBlock ?? 1, model.Unit);
        if (model.Info.BlockSize.Maximum is > 0 and var maximum && maximum < block)
        {
            return null;
        }
        model.Narrow(0, model.Size / block * block);
        model.Change(info => info with
        {
            BlockSize = new BlockSize(1, Math.Max(4096, Math.Max(block, info.BlockSize.Preferred))),
        });
        long piece = Math.Max(block, 512);
        return new BlockSizeFilter
        {
            MinBlock = minBlock,
            MaxData = random.Next(2) == 0 ? null : piece * random.Next(1, 20),
            MaxLength = random.Next(2) == 0 ? null : piece * random.Next(1, 40),
        };
    }

    private static CacheFilter Cache(StackModel model, Random random)
    {
        // A write that is refused below must not have succeeded above.
        CacheMode mode = model.Refuses ? CacheMode.WriteThrough : (CacheMode)random.Next(3);
        long minBlockSize = random.Next(3) == 0 ? 65_536 : 4096 << random.Next(3);
        long blockSize = Math.Max(minBlockSize, Math.Max(model.Info.BlockSize.Minimum, model.Info.BlockSize.Preferred));
        model.Change(info => info with
        {
            BlockSize = info.BlockSize switch
            {
                { IsKnown: false } => new BlockSize(1, blockSize),
                var known when blockSize <= known.Maximum => new BlockSize(known.Minimum, blockSize, known.Maximum),
                var known => known,
            },
            CanCache = Support.Native,
        });
        if (mode != CacheMode.WriteThrough)
        {
            NbdExportInfo below = model.Info;
            bool isDurable = below.CanFlush || below.CanFua != Support.None;
            model.HoldsBack |= below.CanWrite;
            model.ForcesData = false;
            model.LosesData |= below.CanWrite && (mode == CacheMode.Unsafe || !isDurable);
            model.Change(info => info with
            {
                CanFlush = true,
                CanFua = mode == CacheMode.Unsafe || isDurable ? Support.Native : Support.None,
                CanMultiConn = true,
            });
        }
        return new CacheFilter
        {
            Mode = mode,
            MinBlockSize = minBlockSize,
            MaxSize = random.Next(2) == 0 ? null : random.Next(4096, 100_000),
            OnRead = random.Next(2) == 0,
            Store = (CacheStore)random.Next(2),
        };
    }

    private static FuaFilter? Fua(StackModel model, Random random)
    {
        var mode = (FuaMode)random.Next(6);
        bool flushOnClose = random.Next(2) == 0;
        NbdExportInfo below = model.Info;
        if (below.CanWrite)
        {
            if ((mode == FuaMode.Emulate || flushOnClose) && !below.CanFlush)
            {
                return null;
            }
            if (mode is FuaMode.Native or FuaMode.Force && below.CanFua == Support.None)
            {
                return null;
            }
            model.LosesData |= mode == FuaMode.Discard;
            model.ForcesData |= mode == FuaMode.Force;
            model.Change(info => mode switch
            {
                FuaMode.None => info with { CanFua = Support.None },
                FuaMode.Emulate => info with { CanFua = Support.Emulate },
                FuaMode.Native => info with { CanFua = Support.Native },
                FuaMode.Pass => info,
                _ => info with { CanFua = Support.Native, CanFlush = true },
            });
        }
        return new FuaFilter { Mode = mode, FlushOnClose = flushOnClose };
    }

    private static NozeroFilter? Nozero(StackModel model, Random random)
    {
        var mode = (ZeroMode)random.Next(4);
        var fast = (FastZeroMode)random.Next(4);
        NbdExportInfo below = model.Info;
        if (below is { CanWrite: true, CanZero: Support.None } && mode is ZeroMode.Notrim or ZeroMode.Plugin)
        {
            return null;
        }
        model.Change(info => info with
        {
            CanZero = mode switch
            {
                ZeroMode.None => Support.None,
                _ when fast == FastZeroMode.Ignore => Support.Native,
                ZeroMode.Emulate => Support.Emulate,
                _ => info.CanZero,
            },
            CanFastZero = fast switch
            {
                FastZeroMode.None => false,
                FastZeroMode.Default when mode != ZeroMode.Emulate => info.CanFastZero,
                _ => true,
            },
        });
        return new NozeroFilter { Mode = mode, FastMode = fast };
    }

    // The automatic mode depends on the thread model of the whole chain, which is not known here.
    private static MultiConnFilter? MultiConn(StackModel model, Random random)
    {
        var mode = (MultiConnMode)random.Next(1, 5);
        NbdExportInfo below = model.Info;
        bool canFlush = below.CanFlush || below.CanFua == Support.Emulate;
        if (mode == MultiConnMode.Emulate && below.CanWrite && !canFlush)
        {
            return null;
        }
        model.Change(info => mode switch
        {
            MultiConnMode.Emulate => info with
            {
                CanMultiConn = true,
                CanFlush = canFlush,
                CanFua = info.CanFua == Support.Native && canFlush ? Support.Emulate : info.CanFua,
            },
            MultiConnMode.Plugin => info,
            _ => info with { CanMultiConn = mode == MultiConnMode.Unsafe },
        });
        return new MultiConnFilter { Mode = mode, TrackDirty = (MultiConnTracking)random.Next(3) };
    }

    private static OpenonceFilter Openonce(StackModel model, Random random)
    {
        model.Change(info => info with { CanMultiConn = true });
        return new OpenonceFilter { IdleTime = random.Next(2) == 0 ? TimeSpan.Zero : null };
    }

    private static RateFilter Rate(StackModel model, Random random)
    {
        model.Change(info => info with
        {
            CanZero = info.CanZero == Support.Emulate ? Support.Native : info.CanZero,
            CanCache = info.CanCache == Support.Emulate ? Support.Native : info.CanCache,
        });
        return new RateFilter
        {
            Rate = random.NextInt64(2) << 20,
            ConnectionRate = random.NextInt64(2) << 20,
            TimeProvider = new HastyTimeProvider(),
        };
    }

    private static NoextentsFilter Noextents(StackModel model, Random random)
    {
        model.Change(info => info with { CanExtents = false });
        return new NoextentsFilter();
    }

    // The permanent form reaches down to the plugin, so it is not made here but decided before the stack is built.
    private static ReadonlyFilter Readonly(StackModel model, Random random)
        => new() { ReadonlyFile = "/nonexistent/nbdkit-net" };
}
