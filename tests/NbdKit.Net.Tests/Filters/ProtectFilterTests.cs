using NbdKit.Filters;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

public class ProtectFilterTests
{
    private static readonly byte[] Content = TestData.Random(10_000);

    private static async Task<NextContext> OpenAsync(ModelPlugin plugin, params ProtectRange[] ranges)
        => await NbdBackend.Compose(plugin, new ProtectFilter { Ranges = ranges }).OpenAsync();

    [TestCase("0-0x1bd", 0, 0x1bdL, false)]
    [TestCase("~512-1023", 512, 1023L, true)]
    [TestCase("512-", 512, null, false)]
    [TestCase("-0777", 0, 511L, false)]
    [TestCase("-", 0, null, false)]
    [TestCase("1K-1M", 1024, 1_048_576L, false)]
    public void Ranges_are_written_as_in_nbdkit(string text, long start, long? last, bool isComplement)
        => Assert.That(ProtectRange.Parse(text), Is.EqualTo(new ProtectRange(start, last, isComplement)));

    [TestCase("")]
    [TestCase("~")]
    [TestCase("5")]
    [TestCase("6-5")]
    [TestCase("a-b")]
    [TestCase("1-2-3")]
    [TestCase("0-9999999999999999999")]
    public void What_is_not_a_range_is_refused(string text)
        => Assert.That(
            () => ProtectFilter.Entry.Create(new NbdParameters("protect", [new("protect", text)])),
            Throws.ArgumentException.With.Message.Contains($"protect={text}"));

    // nbdkit lets the later range end a merged one, even if that is earlier.
    [Test]
    public void Ranges_that_overlap_protect_all_that_any_of_them_does()
    {
        var filter = new ProtectFilter { Ranges = [new(100, 999), new(200, 299), new(1000, 1000), new(5000, 6000)] };
        Assert.That(filter.Resolve(5500), Is.EqualTo(new[] { (100L, 1001L), (5000L, 5500L) }));
        var around = new ProtectFilter { Ranges = [new(100, 199, true)] };
        Assert.That(around.Resolve(1000), Is.EqualTo(new[] { (0L, 100L), (200L, 1000L) }));
        Assert.That(around.Resolve(150), Is.EqualTo(new[] { (0L, 100L) }));
        Assert.That(new ProtectFilter { Ranges = [new(long.MaxValue, long.MaxValue)] }.Resolve(10), Is.Empty);
    }

    [Test]
    public async Task Writes_pass_if_they_change_nothing_that_is_protected()
    {
        var plugin = new ModelPlugin(Content);
        await using NextContext disk = await OpenAsync(plugin, new ProtectRange(1000, 1999));
        byte[] data = Content[900..2100];
        data[0] ^= 1;
        data[^1] ^= 1;
        await disk.WriteAsync(data, 900, RequestFlags.Fua, default);
        Assert.That(plugin.Data[900..2100], Is.EqualTo(data));
        Assert.That(plugin.TakeCalls(), Has.Some.EqualTo("write 900+1200 Fua"));
        foreach (int at in new[] { 100, 600, 1099 })
        {
            data[at] ^= 1;
            NbdException e = TestData.Failure(async () => await disk.WriteAsync(data, 900, RequestFlags.None, default));
            Assert.That(e.Error, Is.EqualTo(NbdError.PermissionDenied));
            Assert.That(e.Message, Does.Contain("1000-1999"));
            data[at] ^= 1;
        }
        Assert.That(plugin.TakeCalls(), Has.None.StartsWith("write"));
        await disk.WriteAsync(new byte[] { 7 }, 999, RequestFlags.None, default);
        await disk.WriteAsync(new byte[] { 7 }, 2000, RequestFlags.None, default);
        Assert.That(plugin.TakeCalls(), Is.EqualTo(new[] { "write 999+1", "write 2000+1" }));
    }

    // nbdkit goes astray in requests without data that touch several ranges.
    [Test]
    public async Task Zeroes_and_trims_pass_over_several_ranges_if_they_are_zero_already()
    {
        byte[] content = [.. Content];
        content.AsSpan(1000, 100).Clear();
        content.AsSpan(3000, 100).Clear();
        var plugin = new ModelPlugin(content);
        await using NextContext disk = await OpenAsync(plugin, new(1000, 1099), new(3000, 3099), new(5000));
        await disk.TrimAsync(900, 3000, RequestFlags.Fua, default);
        Assert.That(
            plugin.TakeCalls().Where(call => call.StartsWith("trim", StringComparison.Ordinal)),
            Is.EqualTo(new[] { "trim 900+100 Fua", "trim 1100+1900 Fua", "trim 3100+800 Fua" }));
        await disk.ZeroAsync(900, 3000, RequestFlags.MayTrim, default);
        Assert.That(plugin.Data[900..3900], Is.All.Zero);
        byte[] before = [.. plugin.Data];
        Func<Task>[] refused =
        [
            async () => await disk.ZeroAsync(900, 4101, RequestFlags.None, default),
            async () => await disk.TrimAsync(900, 4101, RequestFlags.None, default),
            async () => await disk.ZeroAsync(9_999, 1, RequestFlags.None, default),
        ];
        foreach (Func<Task> request in refused)
        {
            Assert.That(TestData.Failure(request).Error, Is.EqualTo(NbdError.PermissionDenied));
        }
        Assert.That(plugin.Data, Is.EqualTo(before));
        NbdException e = TestData.Failure(async () => await disk.ZeroAsync(1000, 1, RequestFlags.FastZero, default));
        Assert.That(e.Error, Is.EqualTo(NbdError.NotSupported));
        await disk.ZeroAsync(999, 1, RequestFlags.FastZero, default);
    }

    [Test]
    public async Task Any_history_keeps_what_is_protected_and_changes_the_rest([Range(1, 20)] int seed)
    {
        var random = new Random(seed);
        int minimum = 1 << random.Next(10);
        byte[] model = new byte[(20_000 + random.Next(2000)) / minimum * minimum];
        random.NextBytes(model.AsSpan(0, 8000));
        var info = ModelPlugin.Everything with
        {
            BlockSize = new BlockSize(minimum, 4096),
            CanExtents = random.Next(2) == 0,
            CanZero = random.Next(2) == 0 ? Support.Native : Support.Emulate,
        };
        var plugin = new ModelPlugin(model, info, new Random(seed));
        ProtectRange[] ranges =
        [
            .. Enumerable.Range(0, 4).Select(_ => random.Next(20_000)).Select(from => new ProtectRange(from, from + random.Next(1500))),
        ];
        bool[] isProtected = [.. model.Select((_, at) => ranges.Any(r => at >= r.Start && at <= r.Last))];
        byte[] original = [.. model];
        await using NextContext disk = await OpenAsync(plugin, ranges);
        for (int i = 0; i < 300; i++)
        {
            int units = model.Length / minimum;
            int from = random.Next(units);
            int length = random.Next(1, Math.Min(units - from, 1 + (3000 / minimum)) + 1) * minimum;
            int offset = from * minimum;
            int kind = random.Next(4);
            byte[] data = new byte[length];
            if (kind == 0)
            {
                random.NextBytes(data);
            }
            if (kind <= 1 && random.Next(2) == 0)
            {
                for (int j = 0; j < length; j++)
                {
                    data[j] = isProtected[offset + j] ? original[offset + j] : data[j];
                }
            }
            bool allowed = Enumerable.Range(0, length).All(j => !isProtected[offset + j] || data[j] == original[offset + j]);
            Func<Task> request = kind switch
            {
                <= 1 => async () => await disk.WriteAsync(data, offset, RequestFlags.None, default),
                2 => async () => await disk.ZeroAsync(offset, length, RequestFlags.None, default),
                _ => async () => await disk.TrimAsync(offset, length, RequestFlags.None, default),
            };
            string step = $"seed {seed}: #{i} kind {kind} {offset}+{length}";
            if (!allowed)
            {
                Assert.That(TestData.Failure(request).Error, Is.EqualTo(NbdError.PermissionDenied), step);
            }
            else
            {
                await request();
                if (kind < 3)
                {
                    data.CopyTo(model, offset);
                }
                else
                {
                    plugin.Data.AsSpan(offset, length).CopyTo(model.AsSpan(offset));
                }
            }
            Assert.That(plugin.Data.AsSpan().SequenceEqual(model), Is.True, step);
            Assert.That(plugin.Offence, Is.Null, step);
        }
        Assert.That(Enumerable.Range(0, model.Length).All(at => !isProtected[at] || model[at] == original[at]), Is.True);
    }

    [Test]
    public void Ranges_that_are_none_are_refused_where_they_are_set()
    {
        Assert.That(() => new ProtectFilter { Ranges = [new(-1)] }, Throws.ArgumentException);
        Assert.That(() => new ProtectFilter { Ranges = [new(2, 1)] }, Throws.ArgumentException);
    }

    // A disk may be in as many pieces as it has blocks, and only the first one is looked at.
    [Test]
    public async Task Whether_a_range_is_zero_is_asked_for_one_extent_at_a_time()
    {
        var flags = new List<RequestFlags>();
        var plugin = new DelegatePlugin
        {
            Size = 65_536,
            Read = (buffer, _, _) =>
            {
                buffer.Span.Clear();
                return default;
            },
            Write = (_, _, _, _) => default,
            Zero = (_, _, _, _) => default,
            Extents = (offset, length, asked, extents, _) =>
            {
                flags.Add(asked);
                extents.Add(offset, Math.Min(length, 4096), ExtentStatus.Hole | ExtentStatus.Zero);
                return default;
            },
        };
        await using NbdBackend chain = NbdBackend.Compose(plugin, new ProtectFilter { Ranges = [new(0)] });
        await using NextContext disk = await chain.OpenAsync();
        await disk.ZeroAsync(0, 16_384, RequestFlags.None, default);
        Assert.That(flags, Has.Count.EqualTo(4).And.All.EqualTo(RequestFlags.RequestOne));
    }
}
