using NbdKit.Filters;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Layers;

/// <summary>Chains that plugins hold, whose layers fail when they are closed.</summary>
public sealed class InnerContextTests
{
    [Test]
    public async Task All_are_closed_and_end_whatever_some_throw()
    {
        var plugins = new TestPlugin[3];
        int cleanups = 0;
        var hooks = new Hooks
        {
            Close = _ => throw new IOException("it does not close"),
            Cleanup = (_, _) =>
            {
                Interlocked.Increment(ref cleanups);
                return default;
            },
        };
        NbdBackend[] members = [.. plugins.Select((_, i) =>
        {
            plugins[i] = new TestPlugin(new TestExport { Data = new byte[512] });
            return NbdBackend.Compose(plugins[i], new HookFilter(hooks));
        })];
        NbdBackend chain = NbdBackend.Compose(new ConcatPlugin { Chains = members });
        NextContext disk = await chain.OpenAsync();
        await CloseAsync(disk.DisposeAsync());
        Assert.That(plugins.Select(p => (p.Opened, p.Closed)), Is.All.EqualTo((1, 1)));
        await CloseAsync(chain.DisposeAsync());
        Assert.That(cleanups, Is.EqualTo(3), "the chains have ended");
    }

    [Test]
    public async Task An_image_is_closed_with_all_its_files_whatever_its_backing_file_throws()
    {
        var plugins = new List<TestPlugin>();
        int cleanups = 0;
        byte[] overlay = Qcow2Layout.WithBacking(new Qcow2Layout(2048).Image(new byte[2048]), "base", "qcow2");
        byte[] middle = Qcow2Layout.WithBacking(new Qcow2Layout(2048).Image(new byte[2048]), "bottom", "raw");
        NbdBackend chain = NbdBackend.Compose(
            new TestPlugin(new TestExport { Data = overlay }),
            new Qcow2DecFilter
            {
                OpenFile = (name, _) =>
                {
                    var plugin = new TestPlugin(new TestExport { Data = name == "base" ? middle : new byte[2048] });
                    plugins.Add(plugin);
                    return NbdBackend.Compose(plugin, new HookFilter(new Hooks
                    {
                        Close = _ => name == "bottom" ? throw new IOException("it does not close") : default,
                        Cleanup = (_, _) =>
                        {
                            Interlocked.Increment(ref cleanups);
                            return default;
                        },
                    }));
                },
            });
        NextContext disk = await chain.OpenAsync();
        await CloseAsync(disk.DisposeAsync());
        Assert.That(plugins.Select(p => (p.Opened, p.Closed)), Is.EqualTo(new[] { (1, 1), (1, 1) }));
        Assert.That(cleanups, Is.EqualTo(2));
        await CloseAsync(chain.DisposeAsync());
    }

    private static async Task CloseAsync(ValueTask closing)
    {
        try
        {
            await closing.Soon();
        }
        catch (IOException e)
        {
            // To hear of it is as good as not to.
            Assert.That(e.Message, Is.EqualTo("it does not close"));
        }
    }
}
