using NbdKit.Filters;
using NbdKit.Tests.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Failing;

/// <summary>A filter between a server and a plugin that fails.</summary>
/// <param name="Name">The filter.</param>
/// <param name="Filters">It, alone.</param>
/// <param name="AnswersItself">Whether what is written stays in it, so that a write succeeds whatever the plugin says.</param>
internal sealed record FailingLayer(string Name, IReadOnlyList<INbdFilter> Filters, bool AnswersItself)
{
    // Those that need a certain disk below: a format, a key, a map, a device that can only be read forwards.
    private static readonly string[] Special = ["ext2", "gzip", "luks", "partition", "qcow2dec", "tar", "forward-only", "extentlist"];

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

    private static readonly StackGenerator[] Generators = [.. StackGenerators.All.Where(generator => !Special.Contains(generator.Name))];

    /// <summary>How many filters there are.</summary>
    public static int Count => Generators.Length + Others.Length;

    /// <summary>Makes a filter, the same for the same seed; null if this seed makes none for such a plugin.</summary>
    public static FailingLayer? Create(int which, int seed)
    {
        if (which >= Generators.Length)
        {
            (string name, Func<INbdFilter> create, bool answersItself) = Others[which - Generators.Length];
            return new FailingLayer(name, [create()], answersItself);
        }
        StackGenerator generator = Generators[which];
        var model = new StackModel(new byte[FailingHandle.Size], FailingHandle.Info(sparse: false), 0);
        INbdFilter? filter = generator.Create(model, new Random(seed));
        filter = filter is LateFilter late ? late.Make() : filter;
        return filter is null or FilterPair
            ? null
            : new FailingLayer(generator.Name, [filter], model.HoldsBack || model.LosesData || model.IsFrozen);
    }
}
