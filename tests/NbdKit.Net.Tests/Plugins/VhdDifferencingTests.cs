using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Plugins;

public sealed class VhdDifferencingTests
{
    private static readonly CancellationToken None = CancellationToken.None;

    private static NbdBackend Raw(byte[] data) => NbdBackend.Compose(new TestPlugin(new TestExport { Data = data }));

    private static NbdBackend Chain(byte[] image, NbdBackend? parent) => NbdBackend.Compose(new VhdPlugin { Parent = parent, Chain = Raw(image) });

    [Test]
    public async Task Any_stack_of_images_reads_like_its_model()
    {
        for (int seed = 1; seed <= 40; seed++)
        {
            var random = new Random(seed);
            byte[] model = TestData.Random(random.Next(1, 200_000), seed);
            NbdBackend chain = Raw((byte[])model.Clone());
            bool[] isData = [.. Enumerable.Repeat(true, model.Length)];
            Guid parent = Guid.Empty;
            for (int depth = random.Next(1, 4); depth > 0; depth--)
            {
                // Shorter and longer than the parent.
                int block = 512 << random.Next(0, 7);
                byte[] disk = TestData.Random(random.Next(1, 200_000), seed + (1000 * depth));
                bool[] isHere = new bool[(disk.Length + 511) / 512];
                for (int i = 0; i < isHere.Length;)
                {
                    bool value = random.Next(2) == 0;
                    for (int run = random.Next(1, random.Next(2, 60)); run > 0 && i < isHere.Length; run--)
                    {
                        isHere[i++] = value;
                    }
                }
                byte[] next = new byte[disk.Length];
                bool[] nextData = new bool[disk.Length];
                for (int i = 0; i < disk.Length; i++)
                {
                    bool here = isHere[i / 512];
                    next[i] = here ? disk[i] : i < model.Length ? model[i] : (byte)0;
                    nextData[i] = here || (i < model.Length && isData[i]);
                }
                Guid id = TestId(random);
                chain = Chain(VhdDifference.Make(disk, block, isHere, id, parent, i => i % 3 == 0), chain);
                (model, isData, parent) = (next, nextData, id);
            }
            await using NbdBackend top = chain;
            await using NextContext context = await top.OpenAsync();
            Assert.That(context.Info.Size, Is.EqualTo(model.Length), $"seed {seed}");
            for (int i = 0; i < 20; i++)
            {
                int offset = i == 0 ? 0 : random.Next(model.Length);
                int length = i == 0 ? model.Length : random.Next(1, model.Length - offset + 1);
                Assert.That(
                    (await TestData.ReadAsync(context, offset, length)).AsSpan().SequenceEqual(model.AsSpan(offset, length)),
                    $"seed {seed}: {length} bytes at {offset}");
            }
            ExtentList extents = await context.ExtentsFullAsync(0, model.Length, ExtentList.BaseAllocation, None);
            foreach (Extent extent in extents)
            {
                bool isHole = extent.Status == (ExtentStatus.Hole | ExtentStatus.Zero);
                Assert.That(
                    isData.AsSpan((int)extent.Offset, (int)extent.Length).Contains(isHole), Is.False, $"seed {seed}: {extent}");
            }
        }
    }

    [Test]
    public async Task An_image_of_another_parent_is_refused()
    {
        var random = new Random(1);
        byte[] disk = TestData.Random(10_000, 1);
        bool[] some = [.. Enumerable.Range(0, 20).Select(i => i % 2 == 0)];
        (Guid a, Guid b, Guid c) = (TestId(random), TestId(random), TestId(random));
        byte[] child = VhdDifference.Make(disk, 4096, some, a, b, _ => false);
        foreach ((Guid id, bool isRight) in new[] { (b, true), (c, false) })
        {
            NbdBackend parent = Chain(VhdDifference.Make(disk, 1024, some, id, Guid.Empty, _ => false), Raw(disk));
            await using NbdBackend chain = Chain(child, parent);
            if (isRight)
            {
                await using NextContext context = await chain.OpenAsync();
                Assert.That(await TestData.ReadAsync(context, 0, 10_000), Is.EqualTo(disk));
            }
            else
            {
                NbdException e = TestData.Failure(async () => await chain.OpenAsync());
                Assert.That((e.Error, e.Message), Is.EqualTo((NbdError.InvalidArgument, e.Message)));
                Assert.That(e.Message, Does.Contain($"'base.vhd' with the id {b}").And.Contain($"has {c}"));
            }
        }
        await using NbdBackend alone = Chain(child, null);
        Assert.That(TestData.Failure(async () => await alone.OpenAsync()).Message, Does.Contain("'base.vhd', which was not given"));
    }

    [Test]
    public async Task Parents_are_given_by_name_from_the_nearest_on()
    {
        using var folder = new ScratchDirectory();
        var random = new Random(1);
        (Guid a, Guid b, Guid c) = (TestId(random), TestId(random), TestId(random));
        byte[] disk = TestData.Random(10_000, 1);
        bool[] none = new bool[20];
        bool[] some = [.. Enumerable.Range(0, 20).Select(i => i % 2 == 0)];
        folder.Write("a", VhdDifference.Make(disk, 4096, some, a, b, _ => false));
        folder.Write("b", VhdDifference.Make(disk, 1024, none, b, c, _ => true));
        // A fixed one: the disk, then a footer that says so.
        byte[] footer = VhdDifference.Make(disk, 4096, none, c, Guid.Empty, _ => false)[^512..];
        footer[63] = 2;
        footer[67] += 2;
        folder.Write("c", [.. disk, .. footer]);
        var catalogue = new NbdCatalogue();
        foreach ((string[] names, string message) in new[]
        {
            (new[] { "a", "b", "c", "c" }, ""), (["a", "b"], "which was not given"), (["a", "c", "b"], "the parent that was given has"),
        })
        {
            await using NbdBackend chain = catalogue.Compose(
                "vhd", [], [new("file", folder[names[0]]), .. names.Skip(1).Select(name => KeyValuePair.Create("parent", folder[name]))]);
            if (message.Length > 0)
            {
                Assert.That(TestData.Failure(async () => await chain.OpenAsync()).Message, Does.Contain(message));
                continue;
            }
            await using NextContext context = await chain.OpenAsync();
            Assert.That(await TestData.ReadAsync(context, 0, 10_000), Is.EqualTo(disk));
        }
    }

    [Test]
    public async Task Whatever_is_flipped_the_outcome_is_content_or_a_clear_error()
    {
        byte[] disk = TestData.Random(80_000, 1);
        bool[] some = [.. Enumerable.Range(0, 157).Select(i => i % 5 < 2)];
        byte[] original = VhdDifference.Make(disk, 2048, some, Guid.Empty, Guid.Empty, _ => false);
        for (int seed = 0; seed < 200; seed++)
        {
            var random = new Random(seed);
            byte[] image = (byte[])original.Clone();
            for (int i = random.Next(1, 5); i > 0; i--)
            {
                // The table and the bitmaps have no checksum.
                image[random.Next(1536, 4000)] ^= (byte)(1 << random.Next(8));
            }
            try
            {
                await using NbdBackend chain = Chain(image, Raw(disk));
                await using NextContext context = await chain.OpenAsync();
                await TestData.ReadAsync(context, 0, 80_000);
                await context.ExtentsFullAsync(0, 80_000, ExtentList.BaseAllocation, None);
            }
            catch (NbdException)
            {
                // A clear error is as good as content.
            }
            catch (Exception e)
            {
                throw new AssertionException($"seed {seed}: {e}", e);
            }
        }
    }

    private static Guid TestId(Random random)
    {
        byte[] bytes = new byte[16];
        random.NextBytes(bytes);
        return new Guid(bytes);
    }
}
