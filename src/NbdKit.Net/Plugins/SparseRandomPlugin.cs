namespace NbdKit.Plugins;

/// <summary>
/// A disk of runs of random data between holes, as the disks of virtual machines are, the same for the same seed
/// (nbdkit-sparse-random-plugin(1)). A write must be what the disk holds already, else it fails with EIO: it checks copies of
/// itself.
/// </summary>
/// <remarks>
/// <para>
/// Runs and data come in blocks of 4 KiB, made from the seed in the way of nbdkit, so both make the same disk of one seed.
/// (nbdkit serves other bytes to reads that begin inside a block; this does not.) Trims and zeroes succeed where there are only
/// holes, and fail with EIO elsewhere.
/// </para>
/// <para>
/// The runs are made when the chain starts, which takes about a second for each tebibyte; a disk that is neither empty nor full is
/// at most 256 TiB. Only the borders of the runs are kept, and there may be 2^26 runs.
/// </para>
/// </remarks>
public sealed partial class SparseRandomPlugin : INbdPlugin, INbdPluginHandle
{
    /// <summary>The grain of data and holes.</summary>
    private const int Block = 4096;

    private DataRuns _runs = DataRuns.None;

    /// <summary>The plugin in the catalogue: <c>sparse-random</c>, with the magic parameter <c>size</c>.</summary>
    public static NbdPluginEntry Entry { get; } = new(
        "sparse-random",
        "a disk of random data between holes, which checks that copies of it are right",
        [
            new NbdParameter("size", "size of the disk") { IsRequired = true },
            new NbdParameter("percent", "how much of the disk is data, from 0 to 100 (10)"),
            new NbdParameter("runlength", "average length of a run of data (16M)"),
            new NbdParameter("random-content", "whether each byte is random, and not the same over a block (false)"),
            new NbdParameter("seed", "number from 0 to 2^32-1 that the disk is made from (another one each time)"),
        ],
        Create)
    {
        MagicParameter = "size",
    };

    /// <summary>Size of the disk in bytes, from 0 to 2^63-1; see the remarks of the class on how long large ones take.</summary>
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

    /// <summary>How much of the disk is data, about, from 0 to 100.</summary>
    /// <value>10 by default.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is not from 0 to 100.</exception>
    public double Percent
    {
        get;
        init => field = value is >= 0 and <= 100
            ? value
            : throw new ArgumentOutOfRangeException(nameof(Percent), value, "A percentage is from 0 to 100.");
    }
    = 10;

    /// <summary>The average length of a run of data in bytes, at least 1.</summary>
    /// <value>16 MiB by default.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is less than 1.</exception>
    public long RunLength
    {
        get;
        init
        {
            ArgumentOutOfRangeException.ThrowIfLessThan(value, 1, nameof(RunLength));
            field = value;
        }
    }
    = 16 << 20;

    /// <summary>Whether each byte of data is random. If not, each block is one byte over and over, which is made faster.</summary>
    /// <value>False by default.</value>
    public bool RandomContent { get; init; }

    /// <summary>What the disk is made from: the same seed makes the same disk.</summary>
    /// <value>By default another one for each plugin.</value>
    public uint Seed { get; init; } = RandomPlugin.NewSeed();

    /// <inheritdoc/>
    public string Name => "sparse-random";

    /// <inheritdoc/>
    public ThreadModel ThreadModel => ThreadModel.Parallel;

    /// <summary>Makes the runs.</summary>
    /// <inheritdoc/>
    /// <exception cref="NbdException">The disk is larger than 256 TiB, or would have more than 2^26 runs.</exception>
    public async ValueTask GetReadyAsync(ThreadModel model, CancellationToken cancellationToken)
    {
        await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        _runs = DataRuns.Make(Size, Block, Percent, RunLength, Seed, cancellationToken);
    }

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
        CanExtents = true,
        CanReadSparse = Support.Emulate,
    });

    /// <inheritdoc/>
    public ValueTask FlushAsync(CancellationToken cancellationToken) => default;

    private static SparseRandomPlugin Create(NbdParameters parameters)
    {
        long runLength = parameters.Size("runlength") ?? 16 << 20;
        return new SparseRandomPlugin
        {
            Size = parameters.Size("size") ?? throw new ArgumentException("sparse-random: the parameter size= is required."),
            Percent = PercentOf(parameters.Text("percent") ?? "10"),
            RunLength = runLength > 0 ? runLength : throw new ArgumentException("sparse-random: runlength=0 is not more than 0."),
            RandomContent = parameters.Boolean("random-content") ?? false,
            Seed = RandomPlugin.SeedOf(parameters, "sparse-random"),
        };
    }

    private static double PercentOf(string text)
    {
        try
        {
            double value = NbdParse.Probability(text.EndsWith('%') ? text : text + "%") * 100;
            return value <= 100 ? value : throw new FormatException($"'{text}' is more than 100.");
        }
        catch (FormatException e)
        {
            throw new ArgumentException($"sparse-random: percent={text}: {e.Message}", e);
        }
    }
}
