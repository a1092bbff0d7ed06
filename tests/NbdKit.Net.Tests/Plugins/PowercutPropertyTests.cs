using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Plugins;

/// <summary>The images of the plugin against <see cref="PowercutModel"/>.</summary>
public sealed class PowercutPropertyTests
{
    private const int SectorSize = 512;

    [Test]
    public async Task Every_image_is_allowed([Range(1, 40)] int seed)
    {
        var random = new Random(seed);
        int size = random.Next(1, 4 * SectorSize);
        bool multiConn = random.Next(2) == 0;
        byte[] content = TestData.Random(size, seed);
        var model = new PowercutModel(content, SectorSize, multiConn);
        var plugin = new PowercutPlugin { Chain = NbdBackend.Compose(new ModelPlugin(content)), IsMultiConn = multiConn };
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await using NextContext one = await chain.OpenAsync();
        await using NextContext two = await chain.OpenAsync();
        for (int i = 0; i < 60; i++)
        {
            await RunAsync(random, [one, two], model, size);
            Assert.That(await TestData.ReadAsync(one, 0, size), Is.EqualTo(model.Live), $"seed {seed}, operation {i}");
            HashSet<string>[] allowed = [.. Enumerable.Range(0, model.Sectors).Select(model.Allowed)];
            for (int cut = 0; cut < 8; cut++)
            {
                int cutSeed = random.Next();
                await using PowercutImage image = await plugin.CutAsync(cutSeed);
                byte[] found = new byte[size];
                await image.ReadAsync(found, 0);
                for (int sector = 0; sector < model.Sectors; sector++)
                {
                    Assert.That(
                        allowed[sector].Contains(model.Text(found, sector)), Is.True,
                        $"seed {seed}, operation {i}, cut {cutSeed}, sector {sector}: {model.Text(found, sector)}");
                }
            }
        }
    }

    [TestCase(1, new[] { "w 0 1024" })]
    [TestCase(2, new[] { "w 0 1024", "w 512 1024" })]
    [TestCase(3, new[] { "w 0 512", "t 0 1024", "w 0 1536" })]
    [TestCase(4, new[] { "w 0 300", "w 200 300" })]
    [TestCase(5, new[] { "w 0 300", "w 200 300", "z 100 300" })]
    [TestCase(6, new[] { "w 0 1024", "f 100 50", "w 90 20" })]
    [TestCase(7, new[] { "w 0 1024", "s", "t 512 1024", "w 1000 100" })]
    public async Task All_that_is_allowed_is_handed_out(int seed, string[] history)
    {
        const int Size = 3 * SectorSize;
        byte[] content = TestData.Random(Size, seed);
        var model = new PowercutModel(content, SectorSize, multiConn: true);
        var plugin = new PowercutPlugin { Chain = NbdBackend.Compose(new ModelPlugin(content)) };
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await using NextContext disk = await chain.OpenAsync();
        for (int i = 0; i < history.Length; i++)
        {
            string[] words = history[i].Split(' ');
            int offset = words.Length > 1 ? int.Parse(words[1]) : 0;
            int length = words.Length > 2 ? int.Parse(words[2]) : 0;
            await DoAsync(disk, model, 0, words[0][0], offset, TestData.Random(length, 100 + i));
        }
        HashSet<string> wanted = [""];
        for (int sector = 0; sector < model.Sectors; sector++)
        {
            HashSet<string> allowed = model.Allowed(sector);
            wanted = [.. wanted.SelectMany(head => allowed.Select(tail => head + tail))];
        }
        int cuts = 0;
        while (wanted.Count > 0)
        {
            Assert.That(cuts++, Is.LessThan(50_000), $"{wanted.Count} images never came");
            await using PowercutImage image = await plugin.CutAsync(cuts);
            byte[] found = new byte[Size];
            await image.ReadAsync(found, 0);
            wanted.Remove(Convert.ToHexString(found));
        }
    }

    private static async Task RunAsync(Random random, NextContext[] contexts, PowercutModel model, int size)
    {
        int context = random.Next(contexts.Length);
        int offset = random.Next(size);
        int length = random.Next(1, size - offset + 1);
        if (random.Next(2) == 0)
        {
            // Whole sectors, as most writes are.
            offset -= offset % SectorSize;
            length = Math.Min(size - offset, SectorSize * random.Next(1, 4));
        }
        byte[] bytes = TestData.Random(length, random.Next());
        char kind = model.MostPending >= 5 ? 's' : "wwwwfffzts"[random.Next(10)];
        await DoAsync(contexts[context], model, context, kind, offset, bytes);
        if (model.MostPending > 5)
        {
            await DoAsync(contexts[1 - context], model, 1 - context, 's', 0, []);
        }
    }

    private static async Task DoAsync(NextContext disk, PowercutModel model, int context, char kind, int offset, byte[] bytes)
    {
        switch (kind)
        {
            case 'w' or 'f':
                await disk.WriteAsync(bytes, offset, kind == 'f' ? RequestFlags.Fua : RequestFlags.None, default);
                model.Write(context, offset, bytes, kind == 'f');
                break;
            case 'z':
                await disk.ZeroAsync(offset, bytes.Length, RequestFlags.None, default);
                model.Write(context, offset, new byte[bytes.Length], fua: false);
                break;
            case 't':
                await disk.TrimAsync(offset, bytes.Length, RequestFlags.None, default);
                model.Write(context, offset, new byte[bytes.Length], fua: false);
                break;
            default:
                await disk.FlushAsync(default);
                model.Flush(context);
                break;
        }
    }
}
