using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

public class NofilterFilterTests
{
    [Test]
    public async Task Nothing_is_changed()
    {
        var plugin = new ModelPlugin(TestData.Random(4096));
        await using NbdBackend chain = NbdBackend.Compose(plugin, NofilterFilter.Entry.Create(new NbdParameters("nofilter", [])));
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info, Is.EqualTo(plugin.Info with { Size = 4096 }));
        Assert.That(await TestData.ReadAsync(disk, 0, 4096), Is.EqualTo(plugin.Data));
        await disk.ZeroAsync(1, 2, RequestFlags.Fua, default);
        await disk.FlushAsync(default);
        Assert.That(plugin.TakeCalls(), Is.EqualTo(new[] { "read 0+4096", "zero 1+2 Fua", "flush" }));
    }

    /// <summary>The filters that promise to cost nothing but the call.</summary>
    private static readonly Func<INbdFilter>[] Passing =
    [
        () => new NofilterFilter(),
        () => new OffsetFilter { Offset = 4096 },
        () => new FuaFilter { Mode = FuaMode.Force },
        () => new NozeroFilter { Mode = ZeroMode.Notrim },
        () => new NoextentsFilter(),
        () => new ReadonlyFilter { ReadonlyFile = "/nonexistent/file" },
    ];

    [TestCaseSource(nameof(Passing))]
    public async Task Passing_on_a_request_allocates_nothing(Func<INbdFilter> create)
    {
        var plugin = new ModelPlugin(new byte[16_384]) { RecordsCalls = false };
        long Measure(NextContext disk)
        {
            byte[] buffer = new byte[4096];
            long before = GC.GetAllocatedBytesForCurrentThread();
            for (int i = 0; i < 200; i++)
            {
                disk.ReadAsync(buffer, 4096, default).GetAwaiter().GetResult();
                disk.WriteAsync(buffer, 4096, RequestFlags.None, default).GetAwaiter().GetResult();
                disk.ZeroAsync(4096, 4096, RequestFlags.None, default).GetAwaiter().GetResult();
                disk.FlushAsync(default).GetAwaiter().GetResult();
            }
            return GC.GetAllocatedBytesForCurrentThread() - before;
        }

        await using NbdBackend bare = NbdBackend.Compose(plugin);
        await using NbdBackend chain = NbdBackend.Compose(new ModelPlugin(new byte[16_384]) { RecordsCalls = false }, create());
        await using NextContext without = await bare.OpenAsync();
        await using NextContext with = await chain.OpenAsync();
        Measure(without);
        Measure(with);
        // What the plugin itself allocates is not the filter's; nor is a stray object of the runtime, far below one a
        // call.
        Assert.That(Measure(with), Is.LessThan(Measure(without) + 4096));
    }
}
