"""Builds the SavedModels of the golden set:  python build_models.py DIR

Needs TensorFlow 2.16 or later and nothing else. The result is

    DIR/slope/3   DIR/parrot/1   DIR/ledger/1   DIR/gauge/1   DIR/tint/1
    DIR/tide/1    DIR/tide/2

All constants are exact in binary, so that the answers do not depend on the
order in which a CPU adds and multiplies.
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import tensorflow as tf

v1 = tf.compat.v1


def spec(shape, dtype, name):
    return tf.TensorSpec(shape, dtype, name=name)


def export(module, path, **signatures):
    tf.saved_model.save(module, path, signatures=signatures)


def slope(path):
    """An affine regressor, built the TF1 way so that its signatures carry the
    three method names. rise = 2.25 * run - 7.5 + bias.

    serving_default  predict   examples string[n] (tf.Example) -> rise float[n,1]
    direct           predict   run float (any shape) -> rise, same shape
    climb            regress   inputs string[n] (tf.Example) -> outputs float[n,1]
    terrain          classify  inputs -> classes down/flat/up, scores [n,3]
    weights          classify  inputs -> scores [n,3] only
    names            classify  inputs -> classes only

    Example features: run float[1], bias float[1] (default 0).
    """
    graph = tf.Graph()
    with graph.as_default(), v1.Session(graph=graph) as session:
        gain = v1.get_variable("gain", initializer=2.25, use_resource=True)
        base = v1.get_variable("base", initializer=-7.5, use_resource=True)
        serialized = v1.placeholder(tf.string, [None], name="serialized")
        parsed = tf.io.parse_example(
            serialized,
            {
                "run": tf.io.FixedLenFeature([1], tf.float32),
                "bias": tf.io.FixedLenFeature([1], tf.float32, default_value=[0.0]),
            },
            name="features",
        )
        rise = tf.identity(parsed["run"] * gain + base + parsed["bias"], name="rise")
        run = v1.placeholder(tf.float32, None, name="run")
        direct = tf.identity(run * gain + base, name="direct_rise")
        scores = tf.concat(
            [rise * -0.125, tf.fill([tf.shape(rise)[0], 1], 0.5), rise * 0.125],
            1,
            name="scores",
        )
        classes = tf.tile([["down", "flat", "up"]], [tf.shape(rise)[0], 1], name="classes")

        def signature(inputs, outputs, method):
            return v1.saved_model.build_signature_def(
                {k: v1.saved_model.build_tensor_info(t) for k, t in inputs.items()},
                {k: v1.saved_model.build_tensor_info(t) for k, t in outputs.items()},
                "tensorflow/serving/" + method,
            )

        one = {"inputs": serialized}
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(path)
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            {
                "serving_default": signature({"examples": serialized}, {"rise": rise}, "predict"),
                "direct": signature({"run": run}, {"rise": direct}, "predict"),
                "climb": signature(one, {"outputs": rise}, "regress"),
                "terrain": signature(one, {"classes": classes, "scores": scores}, "classify"),
                "weights": signature(one, {"scores": scores}, "classify"),
                "names": signature(one, {"classes": classes}, "classify"),
            },
        )
        builder.save()


def parrot(path):
    """Repeats strings.

    serving_default  phrase string[n] -> phrase, phrase_bytes
    plain            phrase (any shape) -> phrase
    raw              phrase (any shape) -> phrase_bytes
    """

    class Parrot(tf.Module):
        @tf.function(input_signature=[spec([None], tf.string, "phrase")])
        def both(self, phrase):
            return {"phrase": tf.identity(phrase), "phrase_bytes": tf.identity(phrase)}

        @tf.function(input_signature=[spec(None, tf.string, "phrase")])
        def plain(self, phrase):
            return {"phrase": tf.identity(phrase)}

        @tf.function(input_signature=[spec(None, tf.string, "phrase")])
        def raw(self, phrase):
            return {"phrase_bytes": tf.identity(phrase)}

    m = Parrot()
    export(m, path, serving_default=m.both, plain=m.plain, raw=m.raw)


def ledger(path):
    """Two inputs, two outputs.

    serving_default  account int64[n], amount float[n,2]
                     -> account int64[n] (unchanged), total float[n] (row sums)
    branch           account int64[n] -> name string[n]: north, south or east for
                     0, 1, 2; other numbers make the graph fail
    """

    class Ledger(tf.Module):
        @tf.function(
            input_signature=[
                spec([None], tf.int64, "account"),
                spec([None, 2], tf.float32, "amount"),
            ]
        )
        def book(self, account, amount):
            return {"account": tf.identity(account), "total": amount[:, 0] + amount[:, 1]}

        @tf.function(input_signature=[spec([None], tf.int64, "account")])
        def branch(self, account):
            return {"name": tf.gather(tf.constant(["north", "south", "east"]), account)}

    m = Ledger()
    export(m, path, serving_default=m.book, branch=m.branch)


def gauge(path):
    """Several dtypes.

    serving_default  reading double[n] -> alarm bool (over 50), level uint8
                     (clipped to 0..255), ticks int32 (cut off), exact double
    single, double   value float / double (any shape) -> value
    whole            value int32 (any shape) -> value
    octet            value uint8 (any shape) -> value
    invert           flag bool[n] -> flag
    triple           value float[n,3] -> value + [1, 10, 100]
    """

    class Gauge(tf.Module):
        @tf.function(input_signature=[spec([None], tf.float64, "reading")])
        def read(self, reading):
            return {
                "alarm": reading > 50.0,
                "level": tf.cast(tf.clip_by_value(reading, 0.0, 255.0), tf.uint8),
                "ticks": tf.cast(reading, tf.int32),
                "exact": tf.identity(reading),
            }

        @tf.function(input_signature=[spec(None, tf.float32, "value")])
        def single(self, value):
            return {"value": tf.identity(value)}

        @tf.function(input_signature=[spec(None, tf.float64, "value")])
        def double(self, value):
            return {"value": tf.identity(value)}

        @tf.function(input_signature=[spec(None, tf.int32, "value")])
        def whole(self, value):
            return {"value": tf.identity(value)}

        @tf.function(input_signature=[spec(None, tf.uint8, "value")])
        def octet(self, value):
            return {"value": tf.identity(value)}

        @tf.function(input_signature=[spec([None], tf.bool, "flag")])
        def invert(self, flag):
            return {"flag": tf.logical_not(flag)}

        @tf.function(input_signature=[spec([None, 3], tf.float32, "value")])
        def triple(self, value):
            return {"value": value + tf.constant([1.0, 10.0, 100.0])}

    m = Gauge()
    export(
        m,
        path,
        serving_default=m.read,
        single=m.single,
        double=m.double,
        whole=m.whole,
        octet=m.octet,
        invert=m.invert,
        triple=m.triple,
    )


def tint(path):
    """image_bytes string[n] (JPEG or PNG) -> mean_rgb float[n,3] in 0..255,
    label string[n] (red, green or blue: the largest mean), mask_bytes string[n]:
    a grey PNG of the same size, white where red is 128 or more, else black."""

    class Tint(tf.Module):
        @tf.function(input_signature=[spec([None], tf.string, "image_bytes")])
        def serve(self, image_bytes):
            def one(data):
                image = tf.io.decode_image(data, channels=3, expand_animations=False)
                image = tf.ensure_shape(image, [None, None, 3])
                mean = tf.reduce_mean(tf.cast(image, tf.float32), axis=[0, 1])
                label = tf.gather(tf.constant(["red", "green", "blue"]), tf.argmax(mean))
                mask = tf.where(image[:, :, :1] >= 128, tf.uint8.max, tf.uint8.min)
                return mean, label, tf.io.encode_png(tf.cast(mask, tf.uint8))

            mean, label, mask = tf.map_fn(one, image_bytes, fn_output_signature=(tf.float32, tf.string, tf.string))
            return {
                "mean_rgb": tf.ensure_shape(mean, [None, 3]),
                "label": label,
                "mask_bytes": mask,
            }

    m = Tint()
    export(m, path, serving_default=m.serve)


def tide(path, gain, base):
    """hours float[n] -> height = gain * hours + base; 10 and 1 in version 1, 100
    and 2 in version 2."""

    class Tide(tf.Module):
        def __init__(self):
            super().__init__()
            self.gain = tf.Variable(gain, name="gain")
            self.base = tf.Variable(base, name="base")

        @tf.function(input_signature=[spec([None], tf.float32, "hours")])
        def serve(self, hours):
            return {"height": hours * self.gain + self.base}

    m = Tide()
    export(m, path, serving_default=m.serve)


def build_all(root):
    slope(os.path.join(root, "slope", "3"))
    parrot(os.path.join(root, "parrot", "1"))
    ledger(os.path.join(root, "ledger", "1"))
    gauge(os.path.join(root, "gauge", "1"))
    tint(os.path.join(root, "tint", "1"))
    tide(os.path.join(root, "tide", "1"), 10.0, 1.0)
    tide(os.path.join(root, "tide", "2"), 100.0, 2.0)


if __name__ == "__main__":
    build_all(sys.argv[1])
