using NbdKit.Filters;
using NbdKit.Tests.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Failing;

/// <summary>A filter between a server and a plugin that fails.</summary>
/// <param name="Name">The filter.</param>
/// <param name="Filters">It, alone; or with one below that makes the disk which it takes.</param>
/// <param name="Content">What the plugin holds: a format, for a filter that takes one.</param>
/// <param name="AnswersItself">Whether what is written stays in it, so that a write succeeds whatever the plugin says.</param>
internal sealed record FailingLayer(string Name, IReadOnlyList<INbdFilter> Filters, byte[] Content, bool AnswersItself)
{
    // Those that stacks against a model are not made of.
    private static readonly (string Name, Func<INbdFilter> Create, bool AnswersItself)[] Others =
    [
        ("checkwrite", () => new CheckwriteFilter(), true),
        ("cow", () => new CowFilter(), true),
        ("delay", () => new DelayFilter { TimeProvider = new HastyTimeProvider() }, false),
        ("error", () => new ErrorFilter(), false),
        ("ip", () => new IpFilter(), false),
        ("log", () => new LogFilter { Writer = TextWriter.Null }, false),
        ("retry", () => new RetryFilter { Retries = 2, TimeProvider = new HastyTimeProvider() }, false),
        ("scan", () => new ScanFilter(), false),
        ("tls-fallback", () => new TlsFallbackFilter(), false),
    ];

    // What is below them is read from its beginning to its end: who reads on waits for that.
    private static readonly string[] InOrder = ["forward-only", "gzip"];

    // A cache of tables that holds fewer than a read needs lets every read wait for the first table.
    private const long FewTables = 64 << 10;

    /// <summary>How many filters there are.</summary>
    public static int Count => StackGenerators.All.Count + Others.Length;

    /// <summary>Whether reads may wait for each other, wherever they are.</summary>
    public bool HoldsReads => InOrder.Contains(Name) || Filters[0] is Qcow2DecFilter { CacheSize: < FewTables };

    /// <summary>
    /// Whether all may wait for a call below: of the filter that takes one request at a time, and of the one that has read all there
    /// is before it answers.
    /// </summary>
    public bool HoldsAll => Name is "noparallel" or "gzip";

    /// <summary>Whether only sessions within TLS get to the plugin.</summary>
    public bool NeedsTls => Filters[0] is TlsFallbackFilter;

    /// <summary>Makes a filter, the same for the same seed; null if this seed makes none for such a plugin.</summary>
    public static FailingLayer? Create(int which, int seed)
    {
        byte[] content = new byte[FailingHandle.Size];
        if (which >= StackGenerators.All.Count)
        {
            (string name, Func<INbdFilter> create, bool answersItself) = Others[which - StackGenerators.All.Count];
            return new FailingLayer(name, [create()], content, answersItself);
        }
        StackGenerator generator = StackGenerators.All[which];
        var model = new StackModel(content, FailingHandle.Info(sparse: false), 0);
        INbdFilter[]? filters = generator.Create(model, new Random(seed)) switch
        {
            null => null,
            LateFilter late => [late.Make()],
            FilterPair pair => [pair.Above, pair.Below],
            var filter => [filter],
        };
        return filters is null
            ? null
            : new FailingLayer(generator.Name, filters, content, model.HoldsBack || model.LosesData || model.IsFrozen);
    }
}
