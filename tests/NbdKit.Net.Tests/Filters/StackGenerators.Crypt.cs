using System.Text;
using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

internal static partial class StackGenerators
{
    private static FilterPair? Luks(StackModel model, Random random)
    {
        // Another header must fit below the largest size there can be.
        if (!model.IsBacked || model.Size > long.MaxValue - (1 << 20))
        {
            return null;
        }
        (string mode, int keyBytes) = random.Next(4) switch
        {
            0 => ("cbc-essiv:sha256", 32),
            1 => ("cbc-plain", 16),
            2 => ("xts-plain", 32),
            _ => ("xts-plain64", 64),
        };
        var image = new LuksImage(mode, keyBytes, random.Next(), random.Next(8));
        bool discard = random.Next(2) == 0;
        long unit = Math.Max(512, model.Unit);
        model.Narrow(0, model.Size / unit * unit);
        model.Change(info => info with
        {
            BlockSize = new BlockSize(1, Math.Max(4096, Math.Max(unit, info.BlockSize.Preferred))),
            CanTrim = info.CanTrim && discard,
            CanZero = Support.Emulate,
            CanFastZero = true,
            CanCache = info.CanCache == Support.None ? Support.None : Support.Native,
        });
        return new FilterPair(
            new LuksFilter { Passphrase = Encoding.UTF8.GetBytes(LuksImage.Passphrase), Discard = discard },
            new EncryptingFilter(image));
    }

    private static FilterPair? Gzip(StackModel model, Random random)
    {
        if (!model.IsBacked || model.Info.BlockSize.Minimum > 4096 || model.Info.BlockSize.Maximum is > 0 and < 4096)
        {
            return null;
        }
        MakeReadOnly(model);
        return new FilterPair(
            new GzipFilter { Store = (GzipStore)random.Next(2) }, new CompressingFilter(random.Next(1, 4)));
    }

    private static ForwardOnlyFilter? ForwardOnly(StackModel model, Random random)
    {
        if (!model.IsBacked)
        {
            return null;
        }
        MakeReadOnly(model);
        return new ForwardOnlyFilter { ReadSize = 4096 << random.Next(5) };
    }

    private static void MakeReadOnly(StackModel model) => model.Change(info => new NbdExportInfo
    {
        Size = info.Size,
        Description = info.Description,
        CanCache = Support.Native,
        CanExtents = true,
        CanMultiConn = true,
    });
}
